"""The agent: gathers what the processes of one pod report, and serves it to operator and
Prometheus. Standard library only; it accepts no commands."""
