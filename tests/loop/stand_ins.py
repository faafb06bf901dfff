"""Stand-ins for kinds whose controllers cannot be had here: CRDs of the same shape, as far as the
operator looks at it, with the same subresources and the same refusals. Nothing acts on them but the
tests."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def stand_in(
    kind: str,
    group: str,
    version: str,
    spec: Object | None = None,
    scale: tuple[str, str, str] | None = None,
) -> Object:
    """A CRD; ``scale`` gives the paths of wanted and present replicas and of the selector."""
    plural = kind.lower() + "s"
    subresources: Object = {"status": {}}
    if scale is not None:
        names = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
        subresources["scale"] = dict(zip(names, scale, strict=True))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # Groups under k8s.io are for those who have had them approved.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"spec": spec or ANYTHING, "status": ANYTHING},
                        }
                    },
                }
            ],
        },
    }


STAND_INS = (
    stand_in(
        "PyTorchJob",
        "kubeflow.org",
        "v1",
        scale=(
            ".spec.pytorchReplicaSpecs.Worker.replicas",
            ".status.replicaStatuses.Worker.active",
            ".status.replicaStatuses.Worker.selector",
        ),
    ),
    # Since its version 2.1 the Trainer lets nothing of spec.trainer be changed.
    stand_in(
        "TrainJob",
        "trainer.kubeflow.org",
        "v1alpha1",
        ANYTHING
        | {
            "properties": {
                "trainer": ANYTHING
                | {
                    "x-kubernetes-validations": [
                        {"rule": "self == oldSelf", "message": "field is immutable"}
                    ]
                }
            }
        },
    ),
    stand_in("RayCluster", "ray.io", "v1"),
    stand_in("RayService", "ray.io", "v1"),
    stand_in(
        "LeaderWorkerSet",
        "leaderworkerset.x-k8s.io",
        "v1",
        scale=(".spec.replicas", ".status.replicas", ".status.hpaPodSelector"),
    ),
    stand_in("ScaledObject", "keda.sh", "v1alpha1"),
)
