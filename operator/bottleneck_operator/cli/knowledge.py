"""What the catalogue says about causes, as the renderers take it."""

from __future__ import annotations

from ..diagnose.catalogue import CATALOGUE


def advice() -> dict[str, str]:
    """What people can do, by cause id."""
    return {entry.id: entry.advice or _remedy(entry.remedies) for entry in CATALOGUE}


def hints() -> dict[str, tuple[str, str]]:
    """Category and title, by cause id: for reports without a fishbone."""
    return {entry.id: (entry.category, entry.title) for entry in CATALOGUE}


def _remedy(remedies: tuple[str, ...]) -> str:
    words = {"Replicas": "More replicas", "DataLoader": "Other loader settings"}
    named = " or ".join(words.get(remedy, remedy) for remedy in remedies)
    return f"{named}, which the operator sets where the policy's actions allow it." if named else ""
