"""Train a recipe, in one process or in many (`accelerate launch -m dehaze.training …`)."""

import copy
import inspect
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dehaze import hub
from dehaze.errors import DehazeError, WeightsError
from dehaze.haze import HazeRenderer
from dehaze.networks.base import Network
from dehaze.networks.progressive import Progressive
from dehaze.training import settings
from dehaze.training.checkpoint import TrainingState
from dehaze.training.data import RealHaze, RenderedCrops, Scene, find_scenes, without_damaged
from dehaze.training.log import Log
from dehaze.training.pairs import MixedCrops, PairedCrops, find_pairs
from dehaze.training.recipe import Recipe
from dehaze.training.validation import VALIDATION_HAZE, VALIDATION_SEED


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Return the factor of the learning rate at `step`: a linear warm-up times a cosine that falls to 0."""
    warmup = min(1.0, (step + 1) / max(1, recipe.warmup * recipe.steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Update the exponential moving average of the parameters, and copy the buffers."""
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(network.parameters()), None)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)


def train(
    recipe: Recipe,
    data: Path,
    output: Path,
    *,
    pairs: Path | None = None,
    real: Path | None = None,
    features: Path | None = None,
    start: Path | None = None,
    workers: int = 1,
    precision: str = "bf16",
    save_every: int = 500,
    override: bool = False,
) -> Path:
    """Train a recipe on the scenes in `data`; return the folder with the weights of the moving average.

    `pairs` is a folder for `find_pairs`; `recipe.pair_share` of the samples come from it, and validation stays
    rendered. `real` is a folder of real hazy photographs, and `features` a file of weights of a feature backbone, for
    recipes that use them. `start` is a file of initial weights: the network's or, in the progressive framework, its
    backbone's. `output` holds `checkpoint.safetensors` (a killed run resumes from it), `log.csv`, `run.json` with all
    settings, and `weights/`. A run resumes with the settings it was started with; `override` lets them differ.
    `recipe.batch` counts the samples of all processes. Raises DehazeError for missing or incomplete data and other
    settings, WeightsError for a damaged checkpoint, ValueError for a batch, crop or option that does not fit.
    """
    # Without `cpu=True`, several processes on CPUs do not find each other.
    on_cpu = not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=on_cpu)
    if recipe.batch % accelerator.num_processes:
        raise ValueError(f"the batch of {recipe.batch} cannot be shared by {accelerator.num_processes} processes")
    if features is not None and "features" not in inspect.signature(recipe.objective).parameters:
        raise ValueError("this recipe compares no features; leave the weights of VGG16 out")
    given = {"data": data, "pairs": pairs, "real": real, "features": features, "start": start, "precision": precision}
    chosen, checkpoint = settings.describe(recipe, **given), output / "checkpoint.safetensors"
    if checkpoint.exists() and not override:
        settings.check(chosen, output)
    torch.manual_seed(recipe.seed)
    splits = find_scenes(data)
    usable = set(without_damaged([scene for split in splits for scene in split], accelerator.print))
    training, validation = ([scene for scene in split if scene in usable] for split in splits)
    if not validation:
        accelerator.print(f"{len(training)} scenes are too few to hold one out, so none is validated; 11 would do")
    real_haze = None if real is None else RealHaze(real, say=accelerator.print)
    known = [] if pairs is None else without_damaged(find_pairs(pairs)[0], accelerator.print)

    network = recipe.network()
    if recipe.crop % (multiple := network.multiple_of if isinstance(network, Network) else 1):
        raise ValueError(f"crops of {recipe.crop} px do not fit this network; choose a multiple of {multiple}")
    if start is not None:
        load_initial_weights(network, start)
    network = network.to(accelerator.device).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False).eval()
    objective = recipe.objective(network, average, **({} if features is None else {"features": features})).to(
        accelerator.device
    )
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, recipe.learning_rate, weight_decay=recipe.weight_decay)
    state = TrainingState(network, average, optimizer, getattr(objective, "critic", None))
    output.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state.load(checkpoint)
    if state.step > recipe.steps:
        raise DehazeError(
            f"holds a run of {state.step} steps, and {recipe.steps} are asked for.",
            setting="Give more --steps, or another --output.",
            subject=output,
        )
    if state.step == recipe.steps:
        accelerator.print(f"this run has done its {state.step} steps; more --steps with --override go on with it")
    log = Log(output / "log.csv")
    log.keep_until(state.step)
    if accelerator.is_main_process:
        settings.write(chosen, output)

    samples = {"start": state.step * recipe.batch, "stop": recipe.steps * recipe.batch, "real": real_haze}
    samples |= {"size": recipe.crop, "smallest": recipe.smallest_crop, "seed": recipe.seed}
    renderer = HazeRenderer(recipe.renderer)
    if pairs is None:
        crops = RenderedCrops(training, renderer, **samples)
    elif recipe.pair_share < 1:
        crops = MixedCrops(training, renderer, known, recipe.pair_share, **samples)
    else:
        crops = PairedCrops(known, **samples)
    loader = DataLoader(
        crops, recipe.batch // accelerator.num_processes, num_workers=workers, prefetch_factor=4 if workers else None
    )
    parallel, optimizer, loader = accelerator.prepare(objective, optimizer, loader)

    def save() -> None:
        if accelerator.is_main_process:
            scores = recipe.validate(average, _validation(validation, recipe, accelerator.device))
            accelerator.print(f"step {state.step}: {scores}")
            state.seconds = before + time.perf_counter() - began
            # First, as a run that goes on drops the rows after its checkpoint.
            log.append({"step": state.step, "seconds": round(state.seconds), **losses, **scores})
            state.save(checkpoint)

    began, before, losses = time.perf_counter(), state.seconds, state.losses
    hidden = None if accelerator.is_main_process else True  # None: shown only on a terminal
    saved = state.step
    bar = tqdm(loader, total=recipe.steps, initial=state.step, unit="step", disable=hidden)
    for batch in bar:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(state.step, recipe)
        batch = {key: channels_last(value) for key, value in batch.items()}
        terms = parallel(batch, state.step / recipe.steps)
        accelerator.backward(sum(terms.values()))
        accelerator.clip_grad_norm_(trained, recipe.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        # The decay starts low, so that the initial values leave the average soon.
        update_average(average, network, min(recipe.ema_decay, (1 + state.step) / (10 + state.step)))
        state.step += 1
        for key, value in accelerator.reduce({key: value.detach() for key, value in terms.items()}, "mean").items():
            if not value.isfinite():
                raise DehazeError(
                    f"is {value.item()} at step {state.step}.", "Lower the learning rate.", subject=f"The loss {key}"
                )
            losses[key] = 0.98 * losses.get(key, float(value)) + 0.02 * float(value)
        bar.set_postfix({key: f"{value:.4f}" for key, value in losses.items()})
        if state.step % save_every == 0:
            save()
            saved = state.step
    if state.step > saved:
        save()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        recipe.save(average, output / "weights")
        accelerator.print(f"weights: {output / 'weights'}")
    return output / "weights"


def load_initial_weights(network: nn.Module, file: Path) -> None:
    """Read weights into the backbone of a progressive framework or, if they do not fit, into the network.

    Raises WeightsError.
    """
    backbone = network.backbone if isinstance(network, Progressive) else network
    try:
        hub.read_weights(backbone, file, type(backbone).__name__)
    except WeightsError:
        if backbone is network:
            raise
        hub.read_weights(network, file, type(network).__name__)


def channels_last(value: Tensor) -> Tensor:
    """Convert images [B,C,H,W] to channels_last, which makes convolutions fast; return other tensors unchanged."""
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def _validation(scenes: list[Scene], recipe: Recipe, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Yield the validation scenes in batches, with the same haze for all recipes."""
    renderer = HazeRenderer(VALIDATION_HAZE)
    crops = RenderedCrops(scenes, renderer, size=recipe.crop, seed=VALIDATION_SEED, start=0, stop=len(scenes))
    for batch in DataLoader(crops, batch_size=recipe.batch):
        yield {key: value.to(device) for key, value in batch.items()}
