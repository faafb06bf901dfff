"""A training job whose loader is honestly the bottleneck when it has no worker processes."""
