"""Exceptions that say what happened and what to do about it."""


class DehazeError(Exception):
    """Base of every error that this package raises on purpose."""


class ImageError(DehazeError):
    """The input is not a photograph that can be restored."""


class WeightsError(DehazeError):
    """The weights are missing, damaged, or belong to another network."""


class UnknownModelError(DehazeError):
    """No model has this name."""


class VideoError(DehazeError):
    """The input is not a clip that can be restored."""


class OutputError(DehazeError):
    """The result cannot be written."""
