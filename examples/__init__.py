"""Real workloads to try the operator on: a training job, a model server and a load generator."""
