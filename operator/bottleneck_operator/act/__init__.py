"""Brings about the effect of a recorded action, or undoes it. Every effect is idempotent."""
