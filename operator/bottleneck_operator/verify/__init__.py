"""Judges what an action really did: figures before and after in, ``Verdict`` out. Pure."""
