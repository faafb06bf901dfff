"""The gate: stands in front of a workload that may have no replica, and holds connections until one
is there (docs/scale-to-zero.md). Standard library only."""
