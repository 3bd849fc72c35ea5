"""The models at work: loaded when first asked for, on a ZeroGPU Space with a GPU lent for each call."""

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import dehaze
from dehaze import hub
from dehaze.density import HazeDensity, load_density
from dehaze.io.clip import Clip
from dehaze.io.photo import Photo
from dehaze.steady import restore_clip

try:  # on a ZeroGPU Space; the program must import it before torch
    from spaces import GPU  # pyright: ignore[reportMissingImports] - only there
except ImportError:

    def GPU(function):
        return function


MODELS_KEPT = 3  # in memory, beside the small CLIP
logger = logging.getLogger(__name__)


@lru_cache(MODELS_KEPT)
def dehazer(model: str) -> dehaze.Dehazer:
    return dehaze.load(model, fast=True)  # a large photograph shall not keep the others waiting for minutes


@lru_cache(1)
def haze_estimator() -> HazeDensity | None:
    """Load the CLIP model that estimates the haze of any picture; None where none ships, or it is damaged."""
    return optional(load_density) if hub.shipped("clip") else None


def optional(function: Callable, *arguments: Any) -> Any:
    """Return what a function gives, None where it fails: a finished restoration is never lost for what comes beside."""
    try:
        return function(*arguments)
    except Exception:
        logger.exception("%s failed", function.__name__)
        return None


@GPU
def infer(model: str, photo: Photo, strength: float = 1.0, **settings: Any) -> dehaze.Restoration:
    """Restore by a model; `settings` are fields of the Dehazer that differ from those of the page."""
    return replace(dehazer(model), **settings)(photo, strength)


@GPU
def infer_clip(
    model: str, clip: Clip, target: Path, strength: float, turn: Callable[[], AbstractContextManager]
) -> Generator[int, None, None]:
    yield from restore_clip(clip, target, dehazer(model), strength, turn=turn)
