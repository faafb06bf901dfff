"""The one exception that people are meant to read."""


class ClusterError(Exception):
    """Something went wrong that the message explains, with what to do about it."""
