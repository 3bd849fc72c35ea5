"""The training loop, for one process or many (`accelerate launch -m dehaze.training …`)."""

import copy
import csv
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dehaze.haze import HazeRenderer
from dehaze.hub import save_weights
from dehaze.networks import NETWORKS
from dehaze.training.checkpoint import TrainingState
from dehaze.training.data import RenderedCrops, Scene, find_scenes
from dehaze.training.recipe import Recipe


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Return the share of the learning rate at `step`: a linear warm-up, then a cosine down to 0."""
    warmup = min(1.0, (step + 1) / max(1, recipe.warmup))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the exponential moving average of the parameters towards the network's."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def psnr(restored: Tensor, clear: Tensor) -> Tensor:
    """Return the PSNR in dB of each image of [B,3,H,W] in [0,1]; 60 dB at most, so that a mean exists."""
    return -10 * (restored - clear).square().mean((1, 2, 3)).clamp_min(1e-6).log10()


@torch.no_grad()
def validate(network: nn.Module, scenes: list[Scene], recipe: Recipe) -> dict[str, float]:
    """Score a network on scenes kept aside, always rendered alike.

    Returns mean PSNR in dB of the hazy crops (`hazy`), of the restored ones (`restored`), and of clear crops after the
    network against themselves (`harm`); and the mean absolute error of the density, where the network has one.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    crops = RenderedCrops(scenes, HazeRenderer(recipe.renderer), size=recipe.crop, seed=999, start=0, stop=len(scenes))
    scores: dict[str, list[Tensor]] = {"hazy": [], "restored": [], "harm": [], "density_error": []}
    for batch in DataLoader(crops, batch_size=recipe.batch):
        hazy, clear, density = (batch[key].to(device) for key in ("hazy", "clear", "density"))
        scores["hazy"].append(psnr(hazy, clear))
        if hasattr(network, "restore_with_density"):
            restored, estimated = network.restore_with_density(hazy)
            scores["density_error"].append((estimated.float() - density).abs().mean((1, 2, 3)))
        else:
            restored = network(hazy)
        scores["restored"].append(psnr(restored.float().clamp(0, 1), clear))
        scores["harm"].append(psnr(network(clear).float(), clear))
    network.train(was_training)
    return {key: round(torch.cat(values).mean().item(), 4) for key, values in scores.items() if values}


def train(
    recipe: Recipe,
    data: Path,
    output: Path,
    *,
    workers: int = 1,
    precision: str = "bf16",
    save_every: int = 500,
) -> Path:
    """Train by `recipe` on the scenes in `data`; return the folder with the weights of the moving average.

    `output` holds `checkpoint.safetensors` (a run that was killed goes on from it), `log.csv`, `recipe.json` and
    `weights/`. `recipe.batch` is the batch of all processes together. Raises FileNotFoundError where `data` is not as
    `find_scenes` states, WeightsError where the checkpoint is damaged.
    """
    # Said outright, for otherwise several processes on CPUs would not find each other.
    on_cpu = not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=on_cpu)
    if recipe.batch % accelerator.num_processes:
        raise ValueError(f"the batch of {recipe.batch} cannot be shared by {accelerator.num_processes} processes")
    torch.manual_seed(recipe.seed)
    training, validation = find_scenes(data)

    network = NETWORKS.get(recipe.model)().to(accelerator.device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    state = TrainingState(network, average, optimizer)
    checkpoint = output / "checkpoint.safetensors"
    output.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state.load(checkpoint)
    if accelerator.is_main_process:
        described = json.dumps(asdict(recipe), default=lambda function: function.__qualname__, indent=2)
        (output / "recipe.json").write_text(described + "\n")

    crops = RenderedCrops(
        training,
        HazeRenderer(recipe.renderer),
        size=recipe.crop,
        seed=recipe.seed,
        start=state.step * recipe.batch,
        stop=recipe.steps * recipe.batch,
    )
    loader = DataLoader(
        crops, recipe.batch // accelerator.num_processes, num_workers=workers, prefetch_factor=4 if workers else None
    )
    parallel, optimizer, loader = accelerator.prepare(Objective(network, recipe), optimizer, loader)

    def save() -> None:
        if accelerator.is_main_process:
            state.save(checkpoint)
            scores = validate(average, validation, recipe)
            accelerator.print(f"step {state.step}: {scores}")
            seconds = round(time.perf_counter() - began)
            _append(output / "log.csv", {"step": state.step, "seconds": seconds, **losses, **scores})

    began, losses = time.perf_counter(), {}
    hidden = None if accelerator.is_main_process else True  # None: shown on a terminal alone
    bar = tqdm(loader, total=recipe.steps, initial=state.step, unit="step", disable=hidden)
    for batch in bar:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(state.step, recipe)
        terms = parallel(batch)
        accelerator.backward(sum(terms.values()))
        accelerator.clip_grad_norm_(network.parameters(), recipe.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        # The average starts as the network's first steps leave it, not as its initial values.
        update_average(average, network, min(recipe.ema_decay, (1 + state.step) / (10 + state.step)))
        state.step += 1
        for key, value in accelerator.reduce({key: value.detach() for key, value in terms.items()}, "mean").items():
            losses[key] = 0.98 * losses.get(key, value.item()) + 0.02 * value.item()
        bar.set_postfix({key: f"{value:.4f}" for key, value in losses.items()})
        if state.step % save_every == 0 and state.step < recipe.steps:
            save()
    save()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        save_weights(average, output / "weights")
        accelerator.print(f"weights: {output / 'weights'}")
    return output / "weights"


class Objective(nn.Module):
    """A recipe's objective as a module, for accelerate to wrap its precision and its gradients' exchange around."""

    def __init__(self, network: nn.Module, recipe: Recipe):
        super().__init__()
        self.network, self.recipe = network, recipe

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        batch = {key: value.contiguous(memory_format=torch.channels_last) for key, value in batch.items()}
        return self.recipe.objective(self.network, batch)


def _append(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
