"""Train a recipe, in one process or in many (`accelerate launch -m dehaze.training …`)."""

import copy
import inspect
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from dehaze.errors import DehazeError
from dehaze.networks.base import Network
from dehaze.training import settings
from dehaze.training.checkpoint import TrainingState
from dehaze.training.progress import Progress
from dehaze.training.recipe import Recipe
from dehaze.training.results import Results
from dehaze.training.sources import find_sources
from dehaze.training.start import freeze, make_network

TRACKED_EVERY = 10  # steps between the values that trackers get


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
    data: Path | None,
    output: Path,
    *,
    pairs: Path | None = None,
    val_pairs: Path | None = None,
    real: Path | None = None,
    features: Path | None = None,
    start: str | Path | None = None,
    name: str | None = None,
    license: str | None = None,
    workers: int = 1,
    precision: str = "auto",
    save_every: int = 500,
    keep: int = 3,
    patience: int | None = None,
    photo_memory: float = 1.0,
    log_with: Sequence[str] = (),
    override: bool = False,
) -> Path:
    """Train a recipe on scenes, on pairs, or on both; return the folder with the weights of the moving average.

    `data` holds scenes for `find_scenes`, which are rendered hazy, and `pairs` pairs for `find_pairs`, which fill
    `recipe.pair_share` of the samples, all without `data`. A part of both is held out for validation, or `val_pairs`
    are. `real` is a folder of real hazy photographs and `features` a file of weights of a feature backbone, for recipes
    that use them. `start` are initial weights, as `dehaze.load` takes them. `name` and `license` are for the card.

    `output` holds `checkpoint.safetensors` (a killed run resumes from it), `log.csv`, `run.json` with all settings,
    `samples/`, and folders of weights: `weights`, `best`, and `step-N` of the last `keep` validations. With `patience`,
    the run ends after so many validations without a better score. `photo_memory` is for decoded photographs, in GB.
    `log_with` names trackers of accelerate. A run resumes with the settings it was started with; `override` lets them
    differ. `precision` is bf16, fp16, fp32, or auto for `fastest_precision`. `recipe.batch` counts the samples of all
    processes.

    Raises DehazeError for missing or incomplete data and other settings, WeightsError for weights that do not fit,
    ValueError for a batch, crop or option that does not fit.
    """
    # Without `cpu=True`, several processes on CPUs do not find each other.
    on_cpu = not torch.accelerator.is_available()
    precision = fastest_precision() if precision == "auto" else precision
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=on_cpu,
        gradient_accumulation_steps=recipe.accumulate,
        log_with=_trackers(log_with) or None,
        project_dir=output,
    )
    parts = accelerator.num_processes * recipe.accumulate
    _check_options(recipe, parts, pairs, features)
    given = {"data": data, "pairs": pairs, "val_pairs": val_pairs, "real": real, "features": features, "start": start}
    chosen = settings.describe(recipe, **given, precision=precision, card={"name": name, "license": license})
    checkpoint = output / "checkpoint.safetensors"
    if checkpoint.exists() and not override:
        settings.check(chosen, output)
    torch.manual_seed(recipe.seed)
    sources = find_sources(accelerator.print, data, pairs, val_pairs, real)
    network = make_network(recipe, start)
    if recipe.crop % (multiple := network.multiple_of if isinstance(network, Network) else 1):
        raise ValueError(f"crops of {recipe.crop} px do not fit this network; choose a multiple of {multiple}")
    freeze(network, recipe.freeze)
    network = network.to(accelerator.device).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False).eval()
    objective = recipe.objective(network, average, **({} if features is None else {"features": features})).to(
        accelerator.device
    )
    real_from = getattr(objective, "real_from", None)
    if real is not None and real_from is None:
        raise ValueError("this recipe learns nothing from real haze; leave its folder out")
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

    if accelerator.is_main_process:
        settings.write(chosen, output)
    if log_with:
        accelerator.init_trackers(name or recipe.model.replace(":", "_"), _plain(settings.flat(chosen)))
    memory = int(photo_memory * 1e9) // (max(1, workers) * accelerator.num_processes)
    crops = sources.crops(recipe, state.step, real_from or 0.0, memory)
    loader = DataLoader(crops, recipe.batch // parts, num_workers=workers, prefetch_factor=4 if workers else None)
    parallel, optimizer, loader = accelerator.prepare(objective, optimizer, loader)
    results = Results(recipe, sources, output, chosen, keep)
    progress = Progress(state.step, recipe.steps, recipe.batch, accelerator.print, accelerator.is_main_process)
    began, before = time.perf_counter(), state.seconds

    def rate() -> float:
        return recipe.learning_rate * learning_rate_factor(state.step, recipe)

    def save() -> None:
        speed = progress.figures()
        if accelerator.is_main_process:
            state.seconds = before + time.perf_counter() - began
            scores = results.keep(state, {"learning_rate": rate(), **speed})
            accelerator.print(f"step {state.step}: {scores}")
            accelerator.log({**scores, **speed}, step=state.step)
            if patience is not None and state.worse >= patience:
                accelerator.set_trigger()

    if not state.step and start is not None:
        save()  # what the weights are worth before the run
    saved, ended = state.step, patience is not None and state.worse >= patience
    summed: dict[str, Tensor] = {}  # the losses of the parts of a batch
    for batch in () if ended else progress.batches(loader):
        with accelerator.accumulate(parallel):
            for group in optimizer.param_groups:
                group["lr"] = rate()
            terms = parallel({key: channels_last(value) for key, value in batch.items()}, state.step / recipe.steps)
            accelerator.backward(sum(terms.values()))
            for key, value in terms.items():
                summed[key] = summed.get(key, 0.0) + value.detach() / recipe.accumulate
            if not accelerator.sync_gradients:
                continue
            accelerator.clip_grad_norm_(trained, recipe.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad()
        # The decay starts low, so that the initial values leave the average soon.
        update_average(average, network, min(recipe.ema_decay, (1 + state.step) / (10 + state.step)))
        state.step += 1
        update_losses(state.losses, accelerator.reduce(summed, "mean"), state.step)
        summed = {}
        progress.advance(state.losses)
        if state.step % TRACKED_EVERY == 0:
            accelerator.log({**state.losses, "learning_rate": rate()}, step=state.step)
        if state.step % save_every == 0:
            save()
            saved = state.step
            if ended := patience is not None and accelerator.check_trigger():
                break
    if ended:
        accelerator.print(f"stopped at step {state.step}: the last {patience} validations were no better")
    if state.step > saved:
        save()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.is_main_process:
        accelerator.print(
            f"weights: {output / 'weights'}" + (f", best: {output / 'best'}" if state.best is not None else "")
        )
    return output / "weights"


def _check_options(recipe: Recipe, parts: int, pairs: Path | None, features: Path | None) -> None:
    """Raise ValueError for a batch that cannot be split into `parts`, and for sources that a recipe has no use for."""
    if recipe.batch % parts:
        shared = f"{parts} processes" if recipe.accumulate == 1 else f"{parts} parts"
        raise ValueError(f"the batch of {recipe.batch} cannot be shared by {shared}")
    if recipe.needs_density and pairs is not None:
        raise ValueError("this recipe learns from the density of rendered haze; leave the pairs out")
    if features is not None and "features" not in inspect.signature(recipe.objective).parameters:
        raise ValueError("this recipe compares no features; leave the weights of VGG16 out")


def fastest_precision() -> str:
    """Return "bf16" where the device computes in it, else "fp32": emulated, it is ten times slower."""
    if torch.accelerator.is_available():
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def update_losses(means: dict[str, float], terms: Mapping[str, Tensor], step: int) -> None:
    """Update the running means of the losses. Raises DehazeError for one that is not finite."""
    for key, value in terms.items():
        if not value.isfinite():
            raise DehazeError(
                f"is {value.item()} at step {step}.", "Lower the learning rate.", subject=f"The loss {key}"
            )
        means[key] = 0.98 * means.get(key, float(value)) + 0.02 * float(value)


def channels_last(value: Tensor) -> Tensor:
    """Convert images [B,C,H,W] to channels_last, which makes convolutions fast; return other tensors unchanged."""
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def _trackers(names: Sequence[str]) -> list[str | LoggerType | GeneralTracker]:
    """Return the names of trackers; accelerate would pass over one that is not installed."""
    for name in names:
        if name not in {str(each.value) for each in get_available_trackers()}:
            raise ValueError(f"the tracker {name!r} is not installed; 'pip install {name}' may help, or leave it out")
    return [*names]


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as trackers take them: numbers and texts."""
    return {key: value if isinstance(value, bool | int | float) else str(value) for key, value in facts.items()}
