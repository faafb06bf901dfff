"""How many replicas a workload should have, when, and how fast. Pure; see ``docs/scaling.md``."""
