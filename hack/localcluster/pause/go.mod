module bottleneck.dev/hack/localcluster/pause

go 1.22
