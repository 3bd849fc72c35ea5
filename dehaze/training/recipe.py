"""What a training run needs: one `Recipe`, found by name in `dehaze.training.recipes`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dehaze.haze import HazeMixture, RendererConfig
from dehaze.hub import save_weights
from dehaze.training.validation import validate

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """A network, its objective and its schedule.

    `objective(network, average)` makes the module that is trained. Its `forward(batch, progress)` returns the named,
    weighted terms of the loss, whose sum is minimised; progress rises from 0 to 1 over the run. The objective may read
    `average`, the moving average of the network, and hold a `critic` that is trained too. If a run has the weights of
    a feature backbone, the objective gets them as `features=PATH`. `validate(average, batches)` returns the scores on
    validation scenes; `save(average, folder)` writes the weights.
    """

    network: Callable[[], nn.Module]
    objective: Callable[..., nn.Module]
    steps: int
    # Both take what `network` makes.
    validate: Callable[[Any, Iterable[Batch]], dict[str, float]] = validate
    save: Callable[[Any, Path], None] = save_weights
    renderer: RendererConfig | HazeMixture = field(default_factory=RendererConfig)
    crop: int = 256  # px
    smallest_crop: float = 0.6  # share of the shorter side of a photograph; the largest share is 1
    batch: int = 8
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    warmup: float = 0.025  # share of the run
    ema_decay: float = 0.999
    max_gradient_norm: float = 1.0
    seed: int = 0
    pair_share: float = 1.0  # of the samples, in a run with pairs; the other samples are rendered
