"""Weights of perceptual metrics: which files a metric needs, where they are fetched from, and that they are the ones.

pyiqa and torchvision look for them in the torch hub cache and take what lies there. Here a file is checked against its
SHA-256 before it is loaded; the files' names or addresses carry its first digits, or all.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from urllib.error import URLError

import torch
from huggingface_hub import is_offline_mode

from bench.errors import MetricError


@dataclass(frozen=True)
class Weights:
    """A file of weights: its address, and the folder of the torch hub cache in which it is looked for."""

    url: str
    folder: str

    @property
    def path(self) -> Path:
        """Return where the file is looked for."""
        return Path(torch.hub.get_dir()) / self.folder / self.url.rpartition("/")[2]

    def fetch(self, metric: str) -> None:
        """Fetch the file, or check the one that is there; raises `MetricError` that says how to prepare `metric`."""
        digits = _hash_in(self.url)
        if self.path.exists():
            return check(self.path, digits)
        try:
            if is_offline_mode():
                raise URLError("HF_HUB_OFFLINE is set")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(self.path), hash_prefix=digits or None)
        except (OSError, HTTPException, RuntimeError) as error:  # the last is torch's for a wrong hash
            raise MetricError(
                f"needs {self.url}, which cannot be fetched ({error}).",
                subject=metric,
                setting=f"Run 'python -m bench prepare metric:{metric}' with network, or fetch it elsewhere and run "
                f"'python -m bench prepare metric:{metric} --from FILE'.",
            ) from error

    def take(self, file: Path) -> None:
        """Copy `file` to where it is looked for; raises `MetricError` if it is another or cannot be copied."""
        check(file, _hash_in(self.url))
        unfinished = self.path.with_name(f"{self.path.name}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, unfinished)
            unfinished.replace(self.path)
        except OSError as error:
            raise MetricError(f"cannot be copied to {self.path}: {error.strerror}.", subject=file) from error


def _pyiqa(file: str) -> Weights:
    return Weights(f"https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/{file}", "pyiqa")


def _torchvision(file: str) -> Weights:
    return Weights(f"https://download.pytorch.org/models/{file}", "checkpoints")


_CLIP = "https://openaipublic.azureedge.net/clip/models"
WEIGHTS = {
    "lpips": (_torchvision("alexnet-owt-7be5be79.pth"), _pyiqa("LPIPS_v0.1_alex-df73285e.pth")),
    "dists": (_torchvision("vgg16-397923af.pth"), _pyiqa("DISTS_weights-f5e65c96.pth")),
    "brisque": (_pyiqa("brisque_svm_weights.pth"),),  # no hash is published: it is checked by what it holds
    "musiq": (_pyiqa("musiq_koniq_ckpt-e95806b9.pth"),),
    "clipiqa": (Weights(f"{_CLIP}/afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt", "clip"),),
    "nima": (_pyiqa("NIMA_InceptionV2_ava-b0c77c00.pth"),),
}


def ready(metric: str) -> bool:
    """Tell whether all files that `metric` is known to need are there."""
    return all(weights.path.exists() for weights in WEIGHTS.get(metric, ()))


def take(metric: str, source: Path) -> None:
    """Put files of `metric` in place from `source`, a file or a folder, by their names.

    Raises `MetricError` if none is there, or one is not what its name says.
    """
    files = {weights.path.name: weights for weights in WEIGHTS.get(metric, ())}
    if not files:
        setting = "Leave --from out, and what it needs is fetched."
        raise MetricError(f"No files are known for {metric}.", setting=setting)
    given = [path for path in (sorted(source.iterdir()) if source.is_dir() else [source]) if path.name in files]
    if not given:
        raise MetricError(f"is not, and does not hold, {' or '.join(files)}, which {metric} needs.", subject=source)
    for path in given:
        files[path.name].take(path)


def check(file: Path, digits: str | None = None) -> None:
    """Raise `MetricError` unless the SHA-256 of `file` begins with `digits`, by default those in its name, if any."""
    digits = _hash_in(file.name) if digits is None else digits
    if not digits:
        return
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise MetricError(f"cannot be read: {error.strerror}.", subject=file) from error
    if not found.startswith(digits):
        raise MetricError(
            f"is damaged or another file: its SHA-256 begins with {found[: len(digits)]}, not {digits}.",
            "Remove it, and have it fetched anew.",
            subject=file,
        )


@contextmanager
def checked() -> Iterator[None]:
    """Have torch check the files that it loads meanwhile, by the hash in their names, and take tensors alone of them.

    pyiqa itself would unpickle them.
    """
    load = torch.load

    def load_checked(file, *args, **options):
        if isinstance(file, str | PathLike):
            check(Path(file))
        return load(file, *args, **options | {"weights_only": True})

    torch.load = load_checked
    try:
        yield
    finally:
        torch.load = load


def _hash_in(name: str) -> str:
    """Return the hash in `NAME-HASH.pth` or `…/HASH/NAME.pt`, empty if there is none."""
    match = re.search(r"(?:^|[-/])([0-9a-f]{8,64})[./]", name)
    return match[1] if match else ""
