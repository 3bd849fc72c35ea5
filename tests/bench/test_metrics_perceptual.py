"""The bridge to pyiqa: LPIPS from a file, metrics that cannot be had, weights that are not weights."""

import contextlib
import hashlib
import pickle
import re
import shutil
import sys
from math import inf
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from bench import cli, metrics
from bench.metrics import MetricError, perceptual, weights
from dehaze.hub import shipped


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
    """An empty torch hub cache, and no network."""
    from pyiqa.utils import download_util

    def offline(url, *_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path / "hub" / "pyiqa"))
    for module in (torch.hub, download_util):
        monkeypatch.setattr(module, "download_url_to_file", offline)
    return tmp_path / "hub"


def images(height=80, width=96):
    return torch.rand(2, 2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
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


@pytest.mark.slow
def test_lpips_of_identical_images_is_zero(lpips_file):
    restored, _ = images()
    assert metrics.get("lpips", lpips_weights=lpips_file)(restored, restored).tolist() == [0, 0]


@pytest.mark.slow
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


NEEDED = {  # files of each metric that needs weights, in the torch hub cache
    "lpips": ["checkpoints/alexnet-owt-7be5be79.pth", "pyiqa/LPIPS_v0.1_alex-df73285e.pth"],
    "dists": ["checkpoints/vgg16-397923af.pth", "pyiqa/DISTS_weights-f5e65c96.pth"],
    "brisque": ["pyiqa/brisque_svm_weights.pth"],
    "musiq": ["pyiqa/musiq_koniq_ckpt-e95806b9.pth"],
    "clipiqa": ["clip/RN50.pt"],
    "nima": ["pyiqa/NIMA_InceptionV2_ava-b0c77c00.pth"],
}


@pytest.fixture
def brisque_file(tmp_path):
    """Support vectors of the right form, in a file of the right name."""
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "downloads" / "brisque_svm_weights.pth"
    path.parent.mkdir()
    torch.save([torch.randn(774, generator=generator), torch.randn(774, 36, generator=generator)], path)
    return path


@pytest.mark.parametrize("name", NEEDED)
def test_what_needs_weights_says_so_until_they_are_there(cache, name):
    assert metrics.lacking(name) == f"python -m bench prepare metric:{name}"
    for file in NEEDED[name]:
        assert metrics.lacking(name)
        (cache / file).parent.mkdir(parents=True, exist_ok=True)
        (cache / file).write_bytes(b"")
    assert metrics.lacking(name) is None


def test_the_others_are_ready(cache):
    lacking = {name: metrics.lacking(name) for name in metrics.names() if name not in NEEDED}
    assert lacking.pop("fade") == "--fade-stats DIR"
    assert lacking.pop("density") == (None if shipped("clip") else "--clip DIR")
    assert set(lacking.values()) == {None}


@pytest.mark.parametrize("name", NEEDED)
def test_weights_that_cannot_be_fetched_name_address_and_way(cache, name):
    file = re.escape(NEEDED[name][0].rpartition("/")[2])
    with pytest.raises(
        MetricError,
        match=rf"^{name} needs https://\S+/{file}, which .*no network.*'python -m bench prepare metric:{name}' with",
    ):
        metrics.get(name)


def test_no_attempt_is_made_when_the_hub_is_switched_off(cache, monkeypatch):
    monkeypatch.setattr(weights, "is_offline_mode", lambda: True)
    with pytest.raises(MetricError, match=r"brisque needs .* \(<urlopen error HF_HUB_OFFLINE is set>\)"):
        metrics.get("brisque")


@pytest.mark.parametrize("name", NEEDED)
def test_a_file_that_is_not_what_its_name_says_is_refused(cache, name):
    """One that was cut off, or something else under that name: in the cache, and on the way into it."""
    for file in (cache / name for name in NEEDED[name]):
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(MetricError, match=rf"{name} cannot be made ready|is damaged or another file"):
        metrics.get(name)
    if name != "brisque":  # its name carries no hash
        with pytest.raises(MetricError, match=r"SHA-256 begins with [0-9a-f]{8,64}, not [0-9a-f]{8,64}\. Remove it"):
            metrics.prepare(name, file)


def test_weights_of_any_other_name_are_checked_as_well(cache):
    (cache / "pyiqa").mkdir(parents=True)
    torch.save({"params": {}}, cache / "pyiqa" / "CNNIQA_koniq10k-e6f14c91.pth")
    with pytest.raises(MetricError, match=r"CNNIQA_koniq10k-e6f14c91\.pth is damaged or another file"):
        metrics.get("cnniqa")


@pytest.mark.parametrize("of", ["file", "folder"])
def test_prepared_weights_are_used(cache, brisque_file, of):
    metrics.prepare("brisque", brisque_file if of == "file" else brisque_file.parent)
    assert metrics.lacking("brisque") is None
    assert [path.name for path in (cache / "pyiqa").iterdir()] == [brisque_file.name]
    restored, _ = images()
    scores = metrics.get("brisque")(restored)
    assert scores.shape == (2,)

    from pyiqa.archs.brisque_arch import BRISQUE

    torch.testing.assert_close(scores, BRISQUE(pretrained_model_path=brisque_file)(restored).double())


def test_fetched_weights_are_checked_before_they_are_kept(cache, brisque_file, monkeypatch):
    """From addresses of files here: the right one, then one whose hash is not that in its name."""
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(cache.parent))
    digest = hashlib.sha256(brisque_file.read_bytes()).hexdigest()
    right, wrong = (weights.Weights((brisque_file.parent / f"w-{d}.pth").as_uri(), "x") for d in (digest[:8], "0" * 8))
    for file in (right, wrong):
        shutil.copyfile(brisque_file, brisque_file.parent / file.path.name)
    right.fetch("brisque")
    assert right.path.read_bytes() == brisque_file.read_bytes()
    with pytest.raises(MetricError, match='invalid hash value \\(expected "00000000"'):
        wrong.fetch("brisque")
    assert list(right.path.parent.iterdir()) == [right.path]


def test_what_cannot_be_taken_is_said(cache, tmp_path, lpips_file):
    with pytest.raises(MetricError, match=r"lpips\.safetensors is not, and does not hold, brisque_svm_weights\.pth"):
        metrics.prepare("brisque", lpips_file)
    with pytest.raises(MetricError, match=r"No files are known for gmsd\. Leave --from out"):
        metrics.prepare("gmsd", lpips_file)
    with pytest.raises(MetricError, match="absent"):
        metrics.prepare("brisque", tmp_path / "absent")
    metrics.prepare("gmsd")


class _Intruder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_weights_that_run_code_are_refused(cache, tmp_path):
    file = tmp_path / "brisque_svm_weights.pth"
    for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))):
        save(_Intruder(tmp_path / "intruded"), file)
        with pytest.raises(MetricError, match="brisque cannot be made ready"):
            metrics.prepare("brisque", file)
        assert not (tmp_path / "intruded").exists()


def test_torch_is_left_as_it_was(cache):
    import timm

    before = torch.load, timm.create_model, sys.modules.get("pkg_resources")
    for name in ("gmsd", "nima"):
        with contextlib.suppress(MetricError):
            metrics.get(name)
    assert (torch.load, timm.create_model, sys.modules.get("pkg_resources")) == before


@pytest.mark.parametrize("name", ["qalign", "qalign_4bit", "compare2score", "arniqa-spaq"])
def test_metrics_that_run_code_of_their_weights_are_refused(name):
    with pytest.raises(MetricError, match=f"{name} runs code that comes with its weights"):
        metrics.get(name)


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


def test_the_command_prepares_and_lists(cache, brisque_file):
    def bench(*arguments):
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})

    assert "bench prepare metric:brisque" in bench("list", "metrics").stdout
    failed = bench("prepare", "metric:brisque")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: brisque needs https://") and failed.stderr.count("\n") == 1
    assert bench("prepare", "metric:brisque", "--from", brisque_file).stdout == "brisque is ready\n"
    listed = bench("list", "metrics").stdout
    assert "bench prepare metric:brisque" not in listed and "bench prepare metric:musiq" in listed
    assert "native-v1" not in listed
    assert bench("prepare", "metric:brisk").exit_code == bench("list", "metric").exit_code == 2
