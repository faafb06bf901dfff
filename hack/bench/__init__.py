"""The diagnosis benchmark: real processes with a labelled fault each, and what the engine says."""
