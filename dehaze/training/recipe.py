"""What a training run is made of: one `Recipe` per run, in `dehaze/training/recipes/`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from torch import Tensor, nn

from dehaze.haze import HazeMixture, RendererConfig
from dehaze.hub import save_weights
from dehaze.training.validation import validate

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """A network, its objective and its schedule.

    `objective(network, average)` makes the module that is trained: its `forward(batch, progress)`, progress going from
    0 to 1 over the run, returns the named terms of the loss, already weighted, whose sum is minimised. It may look at
    `average`, the network's moving average, and hold a `critic` that is trained beside the network. Where a run is
    given the weights of a feature backbone, it gets them as `features=PATH`.
    `validate(average, batches)` returns the scores on scenes kept aside; `save(average, folder)` writes the weights.
    """

    network: Callable[[], nn.Module]
    objective: Callable[..., nn.Module]
    steps: int
    validate: Callable[[nn.Module, Iterable[Batch]], dict[str, float]] = validate
    save: Callable[[nn.Module, Path], None] = save_weights
    renderer: RendererConfig | HazeMixture = field(default_factory=RendererConfig)
    crop: int = 256
    smallest_crop: float = 0.6  # of the shorter side of a photograph; the largest is the whole of it
    batch: int = 8
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    warmup: int = 200
    ema_decay: float = 0.999
    max_gradient_norm: float = 1.0
    seed: int = 0
    pair_share: float = 1.0  # of the samples, where a run is given pairs; the others are rendered


def recipe_names() -> list[str]:
    """List the recipes by name."""
    import dehaze.training.recipes as recipes

    return sorted(module.name for module in iter_modules(recipes.__path__))


def get_recipe(name: str) -> Recipe:
    """Return the recipe called `name`; an unknown name raises ValueError that lists the known ones."""
    if name not in recipe_names():
        raise ValueError(f"no recipe is called {name!r}; known: {', '.join(recipe_names())}")
    return import_module(f"dehaze.training.recipes.{name}").RECIPE
