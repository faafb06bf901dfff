"""Seeded faults against a real operator process and a real API server (docs/chaos.md)."""
