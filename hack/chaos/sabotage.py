"""Switches off one safeguard of the operator, in its process: the checker has to see it."""


def switch_off(name: str) -> None:
    raise ValueError(name)
