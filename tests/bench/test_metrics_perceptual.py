"""The bridge to pyiqa: LPIPS from a file, metrics that cannot be had, weights that are not weights."""

import pickle
from math import inf
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from bench import metrics
from bench.metrics import MetricError, perceptual


@pytest.fixture
def lpips_file(tmp_path):
    torch.manual_seed(0)
    network = perceptual.Lpips()
    for level in range(5):  # trained heads are not negative
        network.get_submodule(f"lpips_lin{level}").weight.data.abs_()
    save_file({key: value.half() for key, value in network.state_dict().items()}, tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of pyiqa, and no network."""
    from pyiqa.utils import download_util

    def offline(url, *_, **__):
        raise URLError("no network")

    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(download_util, "download_url_to_file", offline)
    return tmp_path


def images(height=80, width=96):
    return torch.rand(2, 2, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_lpips_from_a_file_is_pyiqas(lpips_file, monkeypatch):
    alexnet = torchvision.models.alexnet
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: alexnet(weights=None))
    from pyiqa.archs.lpips_arch import LPIPS

    theirs = LPIPS(pretrained=False)
    state = {}
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}  # where pyiqa keeps each convolution
    for key, value in load_file(lpips_file).items():
        owner, index, *rest = key.split(".")
        if owner == "features":
            state[f"net.slice{slices[int(index)]}.{index}.{rest[0]}"] = value
        else:
            level = owner.removeprefix("lpips_lin")
            state[f"lin{level}.model.1.weight"] = state[f"lins.{level}.model.1.weight"] = value
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert set(missing) == {"scaling_layer.shift", "scaling_layer.scale"} and not unexpected

    restored, clear = images()
    with torch.no_grad():
        expected = theirs.eval()(restored, clear).flatten()
    scores = metrics.get("lpips", lpips_weights=lpips_file)(restored, clear)
    torch.testing.assert_close(scores, expected.double(), rtol=1e-5, atol=1e-7)
    assert (scores > 0).all()


def test_lpips_of_identical_images_is_zero(lpips_file):
    restored, _ = images()
    assert metrics.get("lpips", lpips_weights=lpips_file)(restored, restored).tolist() == [0, 0]


def test_lpips_weights_are_loaded_strictly(lpips_file, tmp_path):
    state = load_file(lpips_file)
    del state["lpips_lin4.weight"]
    save_file(state, tmp_path / "short.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("short", "text", "absent"):
        with pytest.raises(MetricError, match=rf"{name}\.safetensors.*lpips_lin0\.weight to lpips_lin4"):
            metrics.get("lpips", lpips_weights=tmp_path / f"{name}.safetensors")


def test_too_small_for_a_network(lpips_file):
    restored, clear = images(8, 8)
    with pytest.raises(MetricError, match="lpips cannot be computed for an image of 8×8"):
        metrics.get("lpips", lpips_weights=lpips_file)(restored, clear)


def test_weights_that_cannot_be_fetched_name_address_and_place(cache):
    with pytest.raises(MetricError, match=rf"brisque .*no network.* https://\S+/brisque\S+\.pth at {cache}/brisque"):
        metrics.get("brisque")


class _Intruder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_weights_that_run_code_are_refused(cache, tmp_path):
    with pytest.raises(MetricError) as missing:
        metrics.get("brisque")
    file = str(missing.value).rpartition(" at ")[2]
    with open(file, "wb") as target:
        pickle.dump(_Intruder(tmp_path / "intruded"), target)
    with pytest.raises(MetricError, match="brisque cannot be made ready"):
        metrics.get("brisque")
    assert not (tmp_path / "intruded").exists()


def test_any_name_of_pyiqa_is_described_by_it():
    spec = metrics.spec("cw_ssim")
    assert (spec.reference, spec.direction, spec.low, spec.high) == (True, "up", 0, 1)
    restored, clear = images()
    assert metrics.get("cw_ssim")(restored, clear).shape == (2,)


@pytest.mark.parametrize(
    ("score_range", "expected"),
    [("0, 1", (0, 1)), ("~0, ~100", (-inf, inf)), ("0, ~", (0, inf)), ("~, 2", (-inf, 2)), ("", (-inf, inf))],
)
def test_bounds_that_pyiqa_calls_approximate_bound_nothing(score_range, expected):
    assert perceptual._bounds(score_range) == expected
