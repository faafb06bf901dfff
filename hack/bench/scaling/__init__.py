"""A simulated service under a load, and rules that scale it: to tune ours on, and to compare."""
