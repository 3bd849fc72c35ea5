"""Bridge to pyiqa: perceptual metrics by the name pyiqa gives them, and LPIPS from a local file.

pyiqa's licence is non-commercial, so it is imported here and in `niqe` alone, when a metric is asked for. Metrics that
need weights fetch them once (see `weights`); what cannot be had fails that metric alone.
"""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from math import inf
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import MetricError, UnknownMetricError
from bench.metrics import weights
from bench.metrics.base import Direction, Metric, MetricSpec

_TABLE: dict[str, tuple[bool, Direction, float, float, str]] = {  # name: (reference, direction, low, high, definition)
    "ms_ssim": (True, "up", 0.0, 1.0, "Multi-scale structural similarity (Wang 2003) of luma"),
    "vif": (True, "up", 0.0, inf, "Visual information fidelity (Sheikh and Bovik 2006) of luma"),
    "fsim": (True, "up", 0.0, 1.0, "Feature similarity with colour, FSIMc (Zhang 2011)"),
    "gmsd": (True, "down", 0.0, inf, "Gradient magnitude similarity deviation (Xue 2014) of luma"),
    "vsi": (True, "up", 0.0, 1.0, "Visual saliency-induced index (Zhang 2014)"),
    "nlpd": (True, "down", 0.0, inf, "Normalised Laplacian pyramid distance (Laparra 2016) of luma"),
    "lpips": (True, "down", 0.0, inf, "Learned perceptual image patch similarity 0.1, AlexNet (Zhang 2018)"),
    "dists": (True, "down", 0.0, inf, "Deep image structure and texture similarity (Ding 2020)"),
    "piqe": (False, "down", 0.0, 100.0, "Perception-based image quality evaluator (Venkatanath 2015)"),
    "entropy": (False, "up", 0.0, 8.0, "Shannon entropy of the grey levels, in bits"),
    "brisque": (False, "down", -inf, inf, "Blind spatial quality evaluator (Mittal 2012) of luma"),
    "musiq": (False, "up", -inf, inf, "Multi-scale image quality transformer (Ke 2021), KonIQ-10k"),
    "clipiqa": (False, "up", 0.0, 1.0, "CLIP-IQA (Wang 2023): a good photo against a bad photo"),
    "nima": (False, "up", 0.0, 10.0, "Neural image assessment (Talebi and Milanfar 2018), AVA, Inception-ResNet-v2"),
}
_UNITS = {"entropy": "bit"}

_ANOTHER = "Choose another metric."

# Scores of sets or of captions, which have no value for one image.
_NOT_PER_IMAGE = ("fid", "sfid", "fid_dinov2", "inception_score", "clipscore")
# Beginnings of names: Python from the Hub, or TorchScript without a published hash.
_FOREIGN_CODE = ("qalign", "compare2score", "arniqa")


def spec(name: str) -> MetricSpec:
    """Describe a metric of the table above, or any other that pyiqa scores single images with."""
    if name in _TABLE:
        reference, direction, low, high, definition = _TABLE[name]
        return MetricSpec(name, reference, direction, _UNITS.get(name, ""), low, high, f"{definition}; as pyiqa")
    configs = _pyiqa_configs()
    if name in _NOT_PER_IMAGE:
        raise UnknownMetricError("scores sets or captions, not single images.", _ANOTHER, subject=name)
    if name.startswith(_FOREIGN_CODE) and name in configs:
        raise UnknownMetricError(
            "runs code that comes with its weights, which is not done here.", _ANOTHER, subject=name
        )
    if name not in configs:
        from bench.metrics import names

        close = difflib.get_close_matches(name, {*names(), *configs}, n=3)
        advice = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(names())}, and pyiqa's own."
        raise UnknownMetricError(f"No metric is called {name!r}.", advice)
    config = configs[name]
    low, high = _bounds(config.get("score_range") or "")
    return MetricSpec(
        name,
        reference=config["metric_mode"] == "FR",
        direction="down" if config.get("lower_better") else "up",
        unit="",
        low=low,
        high=high,
        definition=f"{name} as pyiqa computes it by default",
    )


def build(name: str, *, lpips_weights: Path | None = None) -> Metric:
    """Return a metric of pyiqa ready to be called; `lpips_weights` is a safetensors file to take `lpips` from."""
    described = spec(name)
    network = Lpips.load(lpips_weights) if lpips_weights else _create(name)

    def score(restored: Tensor, *clear: Tensor) -> Tensor:
        network.to(restored.device)
        try:
            scores = network(*(image.float().clamp(0, 1) for image in (restored, *clear)))
        except Exception as error:  # whatever a network of pyiqa trips over, most often too small an image
            height, width = restored.shape[-2:]
            raise MetricError(
                f"cannot be computed for an image of {width}×{height} ({error}).",
                "Leave it out of this metric.",
                subject=name,
            ) from error
        if not isinstance(scores, Tensor) or scores.numel() != len(restored):
            raise MetricError("gives no single score an image.", _ANOTHER, subject=name)
        return scores

    return Metric(described, score)


class Lpips(nn.Module):
    """LPIPS 0.1 on AlexNet: images [B, 3, H, W] in [0, 1] to distances [B].

    Zhang, Isola, Efros, Shechtman and Wang 2018. Keys: torchvision's `features.N.*` of AlexNet and the five heads
    `lpips_linN.weight`. pyiqa's own class is not used as its making fetches ImageNet weights that it then replaces.
    """

    channels = (64, 192, 384, 256, 256)
    taps = (1, 4, 7, 9, 11)  # the five ReLUs
    shift: Tensor
    scale: Tensor

    def __init__(self):
        from torchvision.models import alexnet

        super().__init__()
        self.features = alexnet(weights=None).features[: self.taps[-1] + 1]
        for level, channels in enumerate(self.channels):
            self.add_module(f"lpips_lin{level}", nn.Conv2d(channels, 1, 1, bias=False))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)

    @classmethod
    def load(cls, path: Path) -> "Lpips":
        """Read the weights from a safetensors file, strictly; raises `MetricError` if that is not what it holds."""
        network = cls().eval()
        try:
            network.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise MetricError(
                f"does not hold the weights of lpips ({reason}).",
                "Give a safetensors file with AlexNet's features.N.weight and .bias and the heads lpips_lin0.weight to "
                "lpips_lin4.weight.",
                subject=path,
            ) from error
        return network

    def forward(self, restored: Tensor, clear: Tensor) -> Tensor:
        levels = zip(self._features(restored), self._features(clear), strict=True)
        distances = (
            self.get_submodule(f"lpips_lin{level}")((a - b).square()).mean(dim=(1, 2, 3))
            for level, (a, b) in enumerate(levels)
        )
        return sum(distances, restored.new_zeros(len(restored)))

    def _features(self, image: Tensor) -> Iterator[Tensor]:
        """Yield the activations behind each ReLU, of unit length in every pixel."""
        x = (2 * image - 1 - self.shift) / self.scale
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                yield x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _pyiqa_configs() -> dict[str, dict]:
    try:
        from pyiqa.default_model_configs import DEFAULT_CONFIGS
    except ImportError as error:
        raise MetricError(
            f"This metric comes from pyiqa, which cannot be imported ({error}).",
            setting="Install it: pip install pyiqa",
        ) from error
    return DEFAULT_CONFIGS


def _create(name: str) -> nn.Module:
    _pyiqa_configs()
    import pyiqa

    for file in weights.WEIGHTS.get(name, ()):
        file.fetch(name)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), weights.checked(), _without_needless(name):
            return pyiqa.create_metric(name, device=torch.device("cpu"))
    except MetricError:
        raise
    except Exception as error:  # download, missing optional package, file that is not weights: that metric alone fails
        download = re.search(r'Downloading: "(.+)" to (\S+)', printed.getvalue())
        if download:
            setting = (
                f"Run 'python -m bench prepare metric:{name}' with network, or put {download[1]} at {download[2]}."
            )
        elif isinstance(error, ImportError):
            setting = "Install the package that is missing."
        else:
            setting = f"Run 'python -m bench prepare metric:{name}' with network."
        reason = f"cannot be made ready ({type(error).__name__}: {error})."
        raise MetricError(reason, subject=name, setting=setting) from error


@contextlib.contextmanager
def _without_needless(name: str) -> Iterator[None]:
    """Spare pyiqa what it asks for and has no use of.

    `nima` fetches ImageNet weights that its own then replace, all of them; CLIP's package imports `packaging` through
    `pkg_resources`, which setuptools no longer has.
    """
    import packaging.version
    import timm

    create = timm.create_model
    stand_in = find_spec("pkg_resources") is None
    if name == "nima":
        timm.create_model = lambda *args, **options: create(*args, **options | {"pretrained": False})
    if stand_in:
        sys.modules["pkg_resources"] = module = ModuleType("pkg_resources")
        vars(module)["packaging"] = packaging
    try:
        yield
    finally:
        timm.create_model = create
        if stand_in:
            del sys.modules["pkg_resources"]


def _bounds(score_range: str) -> tuple[float, float]:
    """Read pyiqa's "0, ~100": what is marked as approximate bounds nothing."""
    match = re.fullmatch(r"\s*(~?)([-\d.]*)\s*,\s*(~?)([-\d.]*)\s*", score_range)
    if not match:
        return -inf, inf
    low_about, low, high_about, high = match.groups()
    return (float(low) if low and not low_about else -inf), (float(high) if high and not high_about else inf)
