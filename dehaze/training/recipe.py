"""What a training run needs: one `Recipe`, found by name in `dehaze.training.recipes`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dehaze.haze import HazeMixture, RendererConfig
from dehaze.hub import save_weights
from dehaze.training.validation import Batch, show_restored, validate


@dataclass(frozen=True)
class Recipe:
    """A network, its objective and its schedule.

    `objective(network, average)` makes the module that is trained. Its `forward(batch, progress)` returns the named,
    weighted terms of the loss, whose sum is minimised; progress rises from 0 to 1 over the run. The objective may read
    `average`, the moving average of the network, and hold a `critic` that is trained too. If it compares features, it
    takes the weights of a feature backbone as `features=PATH`. If it learns from real haze, its attribute `real_from`
    is the progress from which it does. `validate(average, batches)` returns the scores on validation scenes, of which
    `best` is the name of the decisive one, higher is better; `show(average, batch)` returns the columns of the sample
    sheet; `save(average, folder)` writes the weights.
    """

    model: str  # by whose name `dehaze.load` and the Hub know the weights
    network: Callable[[], nn.Module]
    objective: Callable[..., nn.Module]
    steps: int
    # These take what `network` makes.
    validate: Callable[[Any, Iterable[Batch]], dict[str, float]] = validate
    show: Callable[[Any, Batch], Mapping[str, Tensor]] = show_restored
    save: Callable[[Any, Path], None] = save_weights
    best: str = "restored"
    needs_density: bool = False  # it cannot learn from pairs, whose density is unknown
    renderer: RendererConfig | HazeMixture = field(default_factory=RendererConfig)
    crop: int = 256  # px
    smallest_crop: float = 0.6  # share of the shorter side of a photograph; the largest share is 1
    batch: int = 8  # samples of a step
    accumulate: int = 1  # parts of a batch, one after the other: less memory, the same step
    freeze: tuple[str, ...] = ()  # patterns of the names of parameters that are not trained
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    warmup: float = 0.025  # share of the run
    ema_decay: float = 0.999
    max_gradient_norm: float = 1.0
    seed: int = 0
    pair_share: float = 1.0  # of the samples, in a run with scenes and pairs; the other samples are rendered
