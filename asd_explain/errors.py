"""Errors that a user can act on.

Every message is one line that says what went wrong, where, and what to do about it; the command line prints it
as it is, without a traceback, and exits with a non-zero code.
"""


class AsdExplainError(Exception):
    """Base of every error this package raises on purpose."""


class ClipError(AsdExplainError):
    """A clip cannot be read: missing, not a video, damaged, or without a video stream."""


class BoxesError(AsdExplainError):
    """A boxes csv is malformed or belongs to another clip."""


class WeightsError(AsdExplainError):
    """Weights are missing, damaged, or belong to another network."""


class OutputError(AsdExplainError):
    """An output cannot be written, or exists and may not be overwritten."""


class OptionError(AsdExplainError):
    """An option has a value that cannot be used."""
