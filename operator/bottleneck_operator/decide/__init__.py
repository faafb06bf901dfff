"""Chooses what to do: ``Diagnosis``, policy and facts in, one action or a refusal out. Pure."""
