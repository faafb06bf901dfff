"""Finds the bottleneck: ``Observation`` and objectives in, ``Diagnosis`` out. Pure."""
