"""A made-up fixed camera: a known shift is found, a known gain is taken out, a known contrast is told."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage.metrics import structural_similarity
from typer.testing import CliRunner

from bench import metrics, protocol
from bench.cli import app
from bench.compare import compare
from bench.compare import load as load_scored
from bench.datasets import catalogue
from bench.errors import DatasetError
from bench.metrics.reference import fitted, ssim, ssim_fitted
from bench.record import read
from bench.registration import find_shift, register
from bench.report.table import Column


def view(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """Return an image with edges of many sizes, H×W×3 in [0,1]."""
    rng = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(rng.random((height, width, 3)), (sigma, sigma, 0)) for sigma in (1, 3, 9)]
    mixed = sum((layer - layer.min()) / np.ptp(layer) for layer in layers)
    return mixed / mixed.max()


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def eight_bit(image: np.ndarray) -> np.ndarray:
    return (image * 255).round().astype(np.uint8)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -5), (-7, 2), (-16, 16)])
def test_a_known_shift_is_found(down, right):
    whole = view(200, 240)
    hazy = whole[40:160, 40:200]
    clear = whole[40 - down : 160 - down, 40 - right : 200 - right]  # the scene lies further down and right in it
    found = find_shift(eight_bit(0.5 * hazy + 0.4), eight_bit(clear))
    assert (found.down, found.right) == (down, right)
    assert found.correlation > 0.98
    one, other = found.crop(hazy, clear)
    assert np.array_equal(one, other) and one.shape[:2] == (120 - abs(down), 160 - abs(right))


def test_pairs_are_registered_and_stored(tmp_path):
    whole = view(200, 240)
    for name in ("hazy", "clear"):
        (tmp_path / "camera" / name).mkdir(parents=True)
    Image.fromarray(eight_bit(0.4 * whole[40:160, 40:200] + 0.5)).save(tmp_path / "camera" / "hazy" / "01.png")
    Image.fromarray(eight_bit(whole[36:156, 42:202])).save(tmp_path / "camera" / "clear" / "01.png")
    source, target = f"folder:{tmp_path / 'camera'}", tmp_path / "registered"
    result = CliRunner().invoke(app, ["prepare", source, "--register", "--output", str(target)])
    assert result.exit_code == 0, result.output
    assert "01: +4 px down, -2 px right" in result.output
    row = next(csv.DictReader((target / "index.csv").open()))
    assert (row["id"], row["down"], row["right"]) == ("01", "4", "-2") and float(row["gradient_correlation"]) > 0.98
    hazy, clear = (np.asarray(Image.open(target / name / "01.png")) for name in ("hazy", "clear"))
    assert hazy.shape == clear.shape == (116, 158, 3)
    assert np.array_equal(clear, eight_bit(whole[40:156, 42:200]))
    with pytest.raises(DatasetError, match="is not empty"):
        register(tmp_path / "camera", target)
    with pytest.raises(DatasetError, match="Registration needs pairs"):
        register(target / "hazy", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_can_be_registered_is_said():
    for arguments in (["folder:x"], ["folder:x", "--register"], ["milan-4", "--register", "--output", "y"]):
        result = CliRunner().invoke(app, ["prepare", *arguments])
        assert result.exit_code == 2 and "folder:PATH --register --output DIR" in " ".join(result.output.split())


def test_a_gain_and_an_offset_are_taken_out():
    clear = view()
    restored = clear * np.array([0.5, 0.7, 0.9]) + np.array([0.3, 0.1, 0.05])
    brought = fitted(tensor(restored), tensor(clear))
    assert (brought - tensor(clear)).abs().max() < 1e-5
    assert ssim_fitted(tensor(restored), tensor(clear)).item() == pytest.approx(1, abs=1e-6)
    assert ssim(tensor(restored), tensor(clear)).item() < 0.95
    flat = torch.full_like(tensor(clear), 0.5)
    assert fitted(flat, tensor(clear)).mean((2, 3)) == pytest.approx(tensor(clear).mean((2, 3)).numpy(), abs=1e-5)


def test_the_fitted_ssim_agrees_with_scikit_image():
    clear, restored = view(seed=0), 0.6 * view(seed=0) + 0.3 * view(seed=1)
    channels = zip(np.moveaxis(restored, 2, 0), np.moveaxis(clear, 2, 0), strict=True)
    brought = np.stack([np.polyval(np.polyfit(a.ravel(), b.ravel(), 1), a) for a, b in channels], 2).clip(0, 1)
    how = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    expected = structural_similarity(brought, clear, full=True, **how)[1][5:-5, 5:-5].mean()
    scored = protocol.get("fixed-camera-v1").define(metrics.get("ssim"))(tensor(restored), tensor(clear))
    assert scored.item() == pytest.approx(expected, abs=1e-5)


def test_gradients_agree_with_scipy():
    clear, restored = view(seed=0), 0.8 * view(seed=0) + 0.2 * view(seed=1)

    def magnitude(image: np.ndarray) -> np.ndarray:
        luma = image @ np.array([0.299, 0.587, 0.114])
        return np.hypot(ndimage.sobel(luma, 0), ndimage.sobel(luma, 1))[1:-1, 1:-1]

    a, b = magnitude(restored.astype(np.float32)), magnitude(clear.astype(np.float32))
    names = ("gradient_correlation", "gradient_ratio")
    values = {name: metrics.get(name)(tensor(restored), tensor(clear)).item() for name in names}
    assert values["gradient_correlation"] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-6)
    assert values["gradient_ratio"] == pytest.approx(a.mean() / b.mean(), rel=1e-6)


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.5])
def test_the_contrast_of_a_result_is_told(gain):
    clear = 0.25 + 0.5 * view()
    restored = 0.5 + gain * (clear - 0.5)
    assert metrics.get("gradient_ratio")(tensor(restored), tensor(clear)).item() == pytest.approx(gain, rel=1e-4)
    assert metrics.get("gradient_correlation")(tensor(restored), tensor(clear)).item() == pytest.approx(1, abs=1e-5)


def test_images_without_structure_have_no_gradients_to_compare():
    flat, clear = torch.full((1, 3, 32, 32), 0.5), tensor(view(32, 32))
    with pytest.raises(metrics.MetricError, match="has no structure"):
        metrics.get("gradient_correlation")(flat, clear)
    assert metrics.get("gradient_ratio")(flat, clear).item() == 0


@pytest.fixture
def scored(tmp_path):
    """Score what adds contrast, what takes some, and what is right, on a made-up camera."""
    for name in ("hazy", "clear"):
        (tmp_path / "camera" / name).mkdir(parents=True)
    clear = [0.25 + 0.5 * view(seed=seed) for seed in range(6)]
    for number, image in enumerate(clear):
        Image.fromarray(eight_bit(image)).save(tmp_path / "camera" / "clear" / f"{number}.png")
        Image.fromarray(eight_bit(0.5 * image + 0.4)).save(tmp_path / "camera" / "hazy" / f"{number}.png")
    for method, gain in {"harsh": 1.8, "dull": 0.8, "right": 1.02}.items():
        folder = tmp_path / method
        folder.mkdir()
        for number, image in enumerate(clear):
            Image.fromarray(eight_bit((0.5 + gain * (image - 0.5)).clip(0, 1))).save(folder / f"{number}.png")
        command = ["score", folder, "--dataset", f"folder:{tmp_path / 'camera'}", "--method", method]
        command += ["--protocol", "fixed-camera-v1", "--metric", "gradient_ratio", "--output", tmp_path / "results"]
        result = CliRunner().invoke(app, list(map(str, command)))
        assert result.exit_code == 0, result.output
    return {path.stem.split("__")[0]: path for path in (tmp_path / "results").glob("*.json")}


def test_the_nearer_a_ratio_is_to_1_the_better_it_ranks(scored):
    assert len(scored) == 3
    records = [read(path) for path in scored.values()]
    column = Column("gradient_ratio", "one", "", True, 6)
    ranked = sorted(records, key=lambda record: column.rank(record.metrics["gradient_ratio"]))
    assert [record.method.name for record in ranked] == ["right", "dull", "harsh"]
    assert column.label == "gradient_ratio → 1"
    by_name = {record.method.name: path for path, record in zip(scored.values(), records, strict=True)}
    harsh, right = (load_scored(by_name[name]) for name in ("harsh", "right"))
    [difference] = compare(harsh, right)
    assert difference.verdict == "better" and difference.wins == 6 and difference.unit == "|ln|"
    assert difference.mean_b == pytest.approx(np.log(1.02), abs=0.02)


def test_sets_from_fixed_cameras_say_how_they_are_scored():
    for name in catalogue.suites()["dev"]:
        entry = catalogue.get(name)
        assert entry.protocol == "fixed-camera-v1" and "gradient_ratio" in entry.metrics
