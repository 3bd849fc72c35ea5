"""Checkpoints: one safetensors file, written atomically, that a killed run resumes from."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dehaze.errors import OutputError, WeightsError

Tensors = dict[str, Tensor]


@dataclass
class TrainingState:
    """All that a run needs to go on: the network, its moving average, a critic if any, the optimizer and the step."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    critic: nn.Module | None = None
    step: int = 0

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"network.": self.network, "average.": self.average}
        return modules if self.critic is None else modules | {"critic.": self.critic}

    def _optimizer_tensors(self) -> Tensors:
        state = self.optimizer.state_dict()["state"]
        return {f"optimizer.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}

    def save(self, path: Path) -> None:
        """Write the state to `path`; what was there stays until the new file is complete. Raises OutputError."""
        tensors = self._optimizer_tensors()
        for prefix, module in self._modules().items():
            tensors |= {prefix + key: value for key, value in module.state_dict().items()}
        temporary = path.with_suffix(".tmp")
        # Saving needs contiguous tensors; channels_last is restored by the copy into the network.
        try:
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary, {"step": str(self.step)})
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(
                f"the checkpoint {path} cannot be written ({error}); the one before it stays. Make room, start again."
            ) from error

    def load(self, path: Path) -> None:
        """Read the state from `path`. Raises WeightsError if the file is damaged or of another network."""
        try:
            with safe_open(path, "pt") as file:
                step = int(file.metadata()["step"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
            for prefix, module in self._modules().items():
                module.load_state_dict(_under(prefix, tensors))
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"cannot resume from {path}: {error}. Remove the file to start anew.") from error
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for key, value in _under("optimizer.", tensors).items():
            index, _, name = key.partition(".")
            optimizer["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(optimizer)
        self.step = step


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
