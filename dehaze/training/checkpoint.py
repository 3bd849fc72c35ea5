"""Checkpoints: one safetensors file, written atomically, from which a killed run resumes."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dehaze.errors import OutputError, WeightsError

Tensors = dict[str, Tensor]


@dataclass
class TrainingState:
    """The state that a run resumes from: network, moving average, critic if any, and optimizer.

    Besides these: the step, the seconds spent, the running means of the `losses`, the `best` score, and how many
    validations were `worse` than it since.
    """

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    critic: nn.Module | None = None
    step: int = 0
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    worse: int = 0

    def _facts(self) -> dict[str, str]:
        names = ("step", "seconds", "losses", "best", "worse")
        return {name: json.dumps(getattr(self, name)) for name in names}

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"network.": self.network, "average.": self.average}
        return modules if self.critic is None else modules | {"critic.": self.critic}

    def _optimizer_tensors(self) -> Tensors:
        state = self.optimizer.state_dict()["state"]
        return {f"optimizer.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}

    def save(self, path: Path) -> None:
        """Write the state to `path`; the previous file stays until the new one is complete. Raises OutputError."""
        tensors = self._optimizer_tensors()
        for prefix, module in self._modules().items():
            tensors |= {prefix + key: value for key, value in module.state_dict().items()}
        temporary = path.with_suffix(".tmp")
        # Saving needs contiguous tensors; copying into the network restores channels_last.
        try:
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary, self._facts())
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(
                f"cannot be written ({error}).",
                "The previous checkpoint stays: free some space and start again.",
                subject=path,
            ) from error

    def load(self, path: Path) -> None:
        """Read the state from `path`. Raises WeightsError if the file is damaged or belongs to another network."""
        try:
            with safe_open(path, "pt") as file:
                facts = {key: json.loads(value) for key, value in file.metadata().items()}
                step, seconds = int(facts["step"]), float(facts.get("seconds", 0))
                losses = {key: float(value) for key, value in facts.get("losses", {}).items()}
                best, worse = facts.get("best"), int(facts.get("worse", 0))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
            for prefix, module in self._modules().items():
                module.load_state_dict(_under(prefix, tensors))
        except (SafetensorError, RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise WeightsError(
                f"is not a checkpoint of this run ({error}).", "Remove the file to start anew.", subject=path
            ) from error
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for key, value in _under("optimizer.", tensors).items():
            index, _, name = key.partition(".")
            optimizer["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(optimizer)
        self.step, self.seconds, self.losses, self.best, self.worse = step, seconds, losses, best, worse


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
