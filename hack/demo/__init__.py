"""The demo: a cluster, the operator, two real workloads, and what became of their bottlenecks."""
