"""How often the judge is wrong where nothing was done. See ``docs/verification.md``."""
