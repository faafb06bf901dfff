"""The programs that the benchmark's faults are injected into."""
