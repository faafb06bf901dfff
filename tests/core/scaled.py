"""Workloads that are scaled by path, as their clusters show them, cut to what is looked at."""

from __future__ import annotations

from typing import Any

from .objects import Object


def _object(version: str, kind: str, spec: Object, status: Object) -> Object:
    metadata = {"name": "work", "namespace": "ml", "uid": "uid-work", "resourceVersion": "7"}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def batch_job(status: Object | None = None, **spec: Any) -> Object:
    """A Job of two pods that take work until all of it is done."""
    selector = {"matchLabels": {"batch.kubernetes.io/controller-uid": "uid-work"}}
    wanted = {"parallelism": 2, "completionMode": "NonIndexed", "selector": selector, **spec}
    return _object("batch/v1", "Job", wanted, {"active": 2, **(status or {})})


def pytorch_job(status: Object | None = None, **spec: Any) -> Object:
    """An elastic PyTorchJob of two workers."""
    elastic = {"minReplicas": 1, "maxReplicas": 4, "rdzvBackend": "c10d"}
    workers = {"Worker": {"replicas": 2, "restartPolicy": "OnFailure"}}
    wanted = {"elasticPolicy": elastic, "pytorchReplicaSpecs": workers, **spec}
    counts = {"replicaStatuses": {"Worker": {"active": 2}}}
    return _object("kubeflow.org/v1", "PyTorchJob", wanted, {**counts, **(status or {})})


def train_job(status: Object | None = None, **trainer: Any) -> Object:
    """A TrainJob of two nodes whose torchrun is elastic."""
    run = {"command": ["torchrun", "--nnodes=1:4", "train.py"], "numNodes": 2, **trainer}
    suspend = run.pop("suspend", False)
    spec = {"runtimeRef": {"name": "torch-distributed"}, "suspend": suspend, "trainer": run}
    counts = {"jobsStatus": [{"name": "node", "active": 1}]}
    version = "trainer.kubeflow.org/v1alpha1"
    return _object(version, "TrainJob", spec, {**counts, **(status or {})})


def worker_group(name: str = "gpu", **changes: Any) -> Object:
    """A worker group of two."""
    return {"groupName": name, "replicas": 2, "minReplicas": 1, "maxReplicas": 5, **changes}


def ray_cluster(*groups: Object, **spec: Any) -> Object:
    """A RayCluster of one worker group, unless told otherwise."""
    wanted = {"workerGroupSpecs": list(groups) or [worker_group()], **spec}
    return _object("ray.io/v1", "RayCluster", wanted, {"readyWorkerReplicas": 2})


def ray_service(active: str = "work-raycluster-x7k2") -> Object:
    """A RayService and the cluster that serves for it."""
    spec = {"rayClusterConfig": {"workerGroupSpecs": [worker_group(replicas=1)]}}
    return _object(
        "ray.io/v1", "RayService", spec, {"activeServiceStatus": {"rayClusterName": active}}
    )
