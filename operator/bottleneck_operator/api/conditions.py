"""Condition types, reasons and label names: every constant that people match on, in one place."""

from __future__ import annotations

from enum import StrEnum

GROUP = "bottleneck.dev"
VERSION = "v1alpha1"
POLICIES = "bottleneckpolicies"
REPORTS = "bottleneckreports"

INJECT_LABEL = f"{GROUP}/inject"
INJECTED_LABEL = f"{GROUP}/injected"
KNOBS_ANNOTATION = f"{GROUP}/knobs"
APPROVED_ANNOTATION = f"{GROUP}/approved"
POLICY_LABEL = f"{GROUP}/policy"
FINALIZER = f"{GROUP}/operator"
AGENT_CONTAINER = "bottleneck-agent"
"""Name of the sidecar's container."""


class Condition(StrEnum):
    """Condition types of a BottleneckPolicy."""

    READY = "Ready"
    """The policy can do its work: its target exists and no other policy claims it."""
    TELEMETRY_AVAILABLE = "TelemetryAvailable"
    """Every running replica of the target speaks, and what it says is fresh."""
    BOTTLENECKED = "Bottlenecked"
    """An objective is breached, or the workload stands still; the message names the bottleneck."""
    PROGRESSING = "Progressing"
    """An action is under way: applied, awaiting acknowledgement or verification."""
    LIMITED = "Limited"
    """Something keeps the operator from acting; the reason says what."""


class Reason(StrEnum):
    """Reasons of conditions, refusals and events."""

    # Ready
    ACCEPTED = "Accepted"
    TARGET_NOT_FOUND = "TargetNotFound"
    TARGET_NOT_SUPPORTED = "TargetNotSupported"
    TARGET_CLAIMED = "TargetClaimed"
    FORBIDDEN = "Forbidden"
    INVALID_SPEC = "InvalidSpec"
    PAUSED = "Paused"
    # TelemetryAvailable
    STREAMING = "Streaming"
    NO_DATA = "NoData"
    NO_REPLICAS = "NoReplicas"
    NOT_INJECTED = "NotInjected"
    PROMETHEUS_FAILED = "PrometheusFailed"
    # Bottlenecked
    OBJECTIVES_MET = "ObjectivesMet"
    OBJECTIVE_BREACHED = "ObjectiveBreached"
    STANDSTILL = "Standstill"
    """A confirmed fault keeps the workload from running, whatever its objectives are."""
    UNKNOWN = "Unknown"
    # Progressing
    IDLE = "Idle"
    APPLYING = "Applying"
    AWAITING_ACKNOWLEDGEMENT = "AwaitingAcknowledgement"
    AWAITING_REPLICAS = "AwaitingReplicas"
    AWAITING_RESIZE = "AwaitingResize"
    VERIFYING = "Verifying"
    REVERTING = "Reverting"
    RETRYING = "Retrying"
    """The API server did not take a step of an action; it is tried again every second."""
    # Limited, and refusals
    NOT_LIMITED = "NotLimited"
    OBSERVE_ONLY = "ObserveOnly"
    AWAITING_APPROVAL = "AwaitingApproval"
    COOLDOWN = "Cooldown"
    ACTIONS_PER_HOUR = "ActionsPerHour"
    AT_MAXIMUM = "AtMaximum"
    ACTION_NOT_ALLOWED = "ActionNotAllowed"
    NO_REMEDY = "NoRemedy"
    KNOB_NOT_SETTABLE = "KnobNotSettable"
    QUARANTINED = "Quarantined"
    REPLICAS_PENDING = "ReplicasPending"
    CAPACITY_EXHAUSTED = "CapacityExhausted"
    """The pods that were asked for last find no room in the cluster."""
    REPLICAS_OWNED_BY_HPA = "ReplicasOwnedByHPA"
    REPLICAS_OWNED_BY_GITOPS = "ReplicasOwnedByGitOps"
    RESOURCES_OWNED_BY_VPA = "ResourcesOwnedByVPA"
    DISRUPTION_NOT_ALLOWED = "DisruptionNotAllowed"
    CAUSE_UNKNOWN = "CauseUnknown"
    # Events about an action
    BOTTLENECK_FOUND = "BottleneckFound"
    BOTTLENECK_CHANGED = "BottleneckChanged"
    """What limits the workload is another cause than before."""
    ACTION_PLANNED = "ActionPlanned"
    ACTION_APPLIED = "ActionApplied"
    ACTION_ACKNOWLEDGED = "ActionAcknowledged"
    ACTION_REFUSED = "ActionRefused"
    ACTION_KEPT = "ActionKept"
    ACTION_REVERTED = "ActionReverted"
    ACTION_SUPERSEDED = "ActionSuperseded"
    ACTION_ABANDONED = "ActionAbandoned"
