"""Telemetry and knobs of one pod: an agent beside the workload, and an SDK within it."""

VERSION = "0.1.0"
"""Version of the distribution (asking its metadata would cost the agent a megabyte)."""
