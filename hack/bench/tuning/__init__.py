"""How close the operator's own loop comes to the best configuration. See ``docs/tuning.md``."""
