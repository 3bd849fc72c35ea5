"""The models at work: loaded when first asked for, on a ZeroGPU Space with a GPU lent for each call."""

import logging
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import dehaze
from dehaze import hub
from dehaze.adjust import Adjustments, of_look
from dehaze.dehazer import Found
from dehaze.density import HazeDensity, load_density
from dehaze.io.clip import Clip
from dehaze.io.photo import Photo
from dehaze.networks import NETWORKS
from dehaze.page.kept import Kept
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
def find(model: str, photo: Photo) -> tuple[Found, float]:
    """Run a model's network; return what it finds, and the seconds that it took."""
    began = time.perf_counter()
    return dehazer(model).find(photo.tensor()), time.perf_counter() - began


@GPU
def finish(model: str, kept: Kept, adjustments: Adjustments, strength: float) -> Photo:
    """Finish what a model's network has found."""
    return kept.finished(replace(dehazer(model), adjustments=adjustments), strength)


@GPU
def density(model: str, kept: Kept) -> np.ndarray | None:
    """Return the haze density [H,W] that a model's network has found, None where it estimates none."""
    return kept.density(dehazer(model))


@GPU
def infer_clip(
    model: str, clip: Clip, target: Path, look: str, strength: float, turn: Callable[[], AbstractContextManager]
) -> Generator[int, None, None]:
    yield from restore_clip(
        clip, target, replace(dehazer(model), adjustments=adjustments(model, look)), strength, turn=turn
    )


def adjustments(model: str, look: str) -> Adjustments:
    """Return the adjustments of a look for a model."""
    return of_look(look, NETWORKS.get(model).finish)
