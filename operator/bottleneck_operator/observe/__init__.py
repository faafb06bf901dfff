"""Reads the world: sidecar streams and cluster facts in, an ``Observation`` out."""
