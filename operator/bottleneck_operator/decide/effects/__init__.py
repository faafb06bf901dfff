"""How far the effect of an action has come: one function for each kind of change. Pure.

The state machine (``lifecycle.py``) knows only the answers (``standing.py``); what they mean for
knobs, replicas, resources, bounds or images is said here.
"""

from __future__ import annotations

from ...api.report import Action, Phase
from .images import image_effect
from .knobs import knobs_effect
from .replicas import hpa_effect, replicas_effect
from .resources import resources_effect
from .standing import Effect, Progress


def effect_of(action: Action, phase: Phase, progress: Progress) -> Effect:
    """Where the effect stands that ``action`` should have in ``phase``: in Reverting its undoing,
    in all other phases its change."""
    if action.knobs is not None:
        return knobs_effect(action.knobs, phase, progress)
    if action.replicas is not None:
        return replicas_effect(action.replicas, phase, progress)
    if action.image is not None:
        return image_effect(action.image, phase, progress)
    if action.hpa is not None:
        return hpa_effect(action.hpa, phase, progress)
    assert action.resources is not None
    return resources_effect(action.resources, phase, progress)
