"""Tells people: BottleneckReports, policy status, events and metrics."""
