"""FADE against the values of its released code, its parts against independent formulas, its refit end to end."""

import csv
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from bench import metrics
from bench.metrics import MetricError, fade, fade_fit

GOLDEN = list(csv.DictReader((Path(__file__).parents[1] / "golden" / "fade.csv").open()))


def photograph(row):
    package, _, inside = row["package_file"].partition(": ")[2].partition("/")
    with Image.open(Path(find_spec(package).origin).parent / inside) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).float() / 255


def noise(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def release(tmp_path):
    """A folder laid out as the release, holding our statistics."""
    ours = fade.refitted_statistics()
    for file, kind, gaussian in zip(fade.RELEASE_FILES, ("fogfree", "foggy"), (ours.fog_free, ours.foggy), strict=True):
        savemat(tmp_path / file, {f"mu_{kind}param": gaussian.mean[None], f"cov_{kind}param": gaussian.covariance})
    return tmp_path


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["photo"])
def test_features_are_those_of_the_released_code(row):
    means = fade.features(photograph(row)).mean(axis=(0, 1))
    expected = [float(value) for name, value in row.items() if name.startswith("mean_log1p_")]
    np.testing.assert_allclose(means, expected, rtol=1e-4 if row["package_file"].endswith(".png") else 0.01)


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["photo"])
def test_score_of_the_refit_has_not_moved(row):
    score = metrics.get("fade_refit")(photograph(row)[None])
    assert score.item() == pytest.approx(float(row["D_refit"]), rel=0.01)


def test_refit_ranks_as_the_released_code():
    """The two clearest and the two haziest photographs of the table are the same with either statistics."""
    order = {key: [row["photo"] for row in sorted(GOLDEN, key=lambda row: float(row[key]))] for key in ("D", "D_refit")}
    assert order["D"][-2:] == order["D_refit"][-2:]
    assert order["D"][:2] == ["coffee", "astronaut"] == order["D_refit"][:2]


def test_distance_is_that_of_the_paper():
    random = np.random.default_rng(0)
    root = random.normal(size=(12, 12))
    gaussian = fade.Gaussian(random.normal(size=12), root @ root.T + 0.1 * np.eye(12))
    patches = random.normal(size=(3, 4, 12))
    expected = np.empty((3, 4))
    for index in np.ndindex(3, 4):
        difference = gaussian.mean - patches[index]
        covariance = (gaussian.covariance + np.var(patches[index], ddof=1)) / 2
        expected[index] = np.sqrt(difference @ np.linalg.solve(covariance, difference))
    np.testing.assert_allclose(fade.distances(patches, gaussian), expected, rtol=1e-9)


def test_density_is_the_ratio_of_mean_distances_over_defined_patches():
    image = noise(48, 64)
    image[:, 16:24, 24:32] = 0  # a black patch has no coefficient of variation
    statistics = fade.refitted_statistics()
    measured = fade.fog_density(image, statistics)
    patches = fade.features(image)
    defined = np.isfinite(patches).all(axis=-1)
    assert not defined[2, 3] and defined.any()
    fog_free, foggy = (fade.distances(patches[defined], g) for g in (statistics.fog_free, statistics.foggy))
    assert measured.density == pytest.approx(fog_free.mean() / (foggy.mean() + 1))
    np.testing.assert_allclose(measured.map[defined], fog_free / (foggy + 1))
    assert np.isnan(measured.map[2, 3])


def test_entropy_and_colourfulness_of_known_patches():
    patches = np.stack([np.arange(64), np.arange(64) // 32, np.full(64, 7)]).astype(np.uint8)
    np.testing.assert_allclose(fade._entropy(patches), [6, 1, 0])
    flat = np.full(64, 30.0)
    assert fade._colourfulness(flat, 0 * flat) == pytest.approx(9)


def test_bands_join_without_a_seam(monkeypatch):
    image = noise(88, 56)
    whole = fade.features(image)
    monkeypatch.setattr(fade, "BAND_PIXELS", 1)
    np.testing.assert_array_equal(fade.features(image), whole)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (23, 41), (40, 17)])
def test_what_is_beyond_whole_patches_is_cut(height, width):
    image = noise(height, width)
    rows, columns = height // 8, width // 8
    assert fade.fog_density(image, fade.refitted_statistics()).map.shape == (rows, columns)
    np.testing.assert_array_equal(fade.features(image), fade.features(image[:, : rows * 8, : columns * 8]))


def test_a_denser_veil_scores_higher():
    clear = photograph(next(row for row in GOLDEN if row["photo"] == "coffee"))
    veiled = torch.stack([t * clear + (1 - t) * 0.9 for t in (1.0, 0.8, 0.6, 0.4, 0.2)])
    scores = metrics.get("fade_refit")(veiled).tolist()
    assert scores == sorted(scores) and scores[-1] > 3 * scores[0]


@pytest.mark.parametrize("level", [0, 1, 37, 77, 128, 200, 250, 254, 255, (37, 77, 250), (255, 0, 0)], ids=str)
@pytest.mark.parametrize("size", [(16, 16), (61, 43)])
def test_an_image_of_one_colour_is_undefined(level, size):
    image = torch.tensor(np.broadcast_to(level, (3,)).copy()).float().div(255)[:, None, None].expand(3, *size)
    with pytest.raises(MetricError, match="undefined for this image: it has no structure"):
        metrics.get("fade_refit")(image[None])
    assert np.isnan(fade.fog_density(image, fade.refitted_statistics()).map).all()


def test_an_image_of_one_grey_level_is_undefined():
    """The first features see grey alone: without structure in it they are rounding noise."""
    image = torch.full((3, 32, 32), 0.5)
    image[2, :, 16:] += 1 / 255  # blue, of which a step does not reach the grey level
    assert np.ptp(fade.grey((image.numpy() * 255).round().astype(np.uint8))) == 0
    assert np.isnan(fade.fog_density(image, fade.refitted_statistics()).density)


@pytest.mark.parametrize("level", [1, 37, 77, 128, 250])
def test_faint_texture_has_a_number(level):
    image = (level + torch.randint(0, 2, (1, 48, 48), generator=torch.Generator().manual_seed(0))).expand(3, -1, -1)
    assert 0 < metrics.get("fade_refit")(image[None] / 255).item() < np.inf


def test_released_statistics_are_read_from_a_folder(release):
    image = noise(64, 64)[None]
    assert metrics.get("fade", fade_stats=release)(image) == metrics.get("fade_refit")(image)


def test_fade_without_its_statistics_says_where_they_are(release):
    with pytest.raises(MetricError, match=r"FADE_release\.zip.*natural_fogfree_image_features_ps8\.mat.*fade_refit"):
        metrics.get("fade")
    (release / fade.RELEASE_FILES[1]).unlink()
    with pytest.raises(MetricError, match=r"natural_foggy_image_features_ps8\.mat does not exist"):
        metrics.get("fade", fade_stats=release)


@pytest.mark.parametrize("content", [b"", b"not MATLAB at all, but long enough to have a header" * 10])
def test_damaged_statistics_are_refused(release, content):
    (release / fade.RELEASE_FILES[0]).write_bytes(content)
    with pytest.raises(MetricError, match="is not the statistics file of the release"):
        metrics.get("fade", fade_stats=release)


def test_statistics_of_something_else_are_refused(release):
    savemat(release / fade.RELEASE_FILES[0], {"mu_prisparam": np.zeros(36)})
    with pytest.raises(MetricError, match="mu_fogfreeparam"):
        metrics.get("fade", fade_stats=release)
    with pytest.raises(MetricError, match=r"mean \[12\]"):
        fade.Gaussian(np.zeros(36), np.eye(36))
    with pytest.raises(MetricError, match="singular"):
        fade.Gaussian(np.zeros(12), np.ones((12, 12)))


def test_fit_takes_the_highest_quarter_of_each_photograph_with_equal_weight():
    random = np.random.default_rng(1)
    photographs = [random.normal(size=(10, 8, 12)), random.normal(1, 2, size=(20, 8, 12))]
    photographs[0][0, 0, 5] = np.nan
    rank = fade.FEATURES.index("sigma")
    chosen, weights = [], []
    for photograph, count in zip(photographs, (20, 40), strict=True):  # of 79 and of 160 defined patches
        flat = photograph.reshape(-1, 12)[np.isfinite(photograph.reshape(-1, 12)).all(axis=1)]
        chosen.append(flat[np.argsort(flat[:, rank])[-count:]])
        weights.append(np.full(count, 1 / count))
    gaussian = fade_fit.fit(photographs, "sigma")
    patches, weights = np.concatenate(chosen), np.concatenate(weights)
    np.testing.assert_allclose(gaussian.mean, np.average(patches, axis=0, weights=weights))
    np.testing.assert_allclose(gaussian.covariance, np.cov(patches.T, aweights=weights, ddof=0))


def test_fit_without_a_usable_patch():
    with pytest.raises(MetricError, match="photographs with texture"):
        fade_fit.fit([np.full((2, 2, 12), np.nan)], "sigma")


def test_fitting_command_writes_what_is_read(tmp_path, monkeypatch):
    for kind in ("clear", "hazy"):
        (tmp_path / kind).mkdir()
        for seed in range(3):
            image = noise(96, 96, seed).permute(1, 2, 0).numpy()
            image = 0.3 * image + 0.6 if kind == "hazy" else image
            Image.fromarray((image * 255).astype(np.uint8)).save(tmp_path / kind / f"{seed}.png")
    output = tmp_path / "fit.json"
    arguments = ["--clear", str(tmp_path / "clear"), "--hazy", str(tmp_path / "hazy"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["fade_fit", *arguments])
    fade_fit.main()
    statistics = fade.statistics_from_json(output.read_text())
    assert json.loads(output.read_text())["foggy"]["photographs"] == 3
    dark_channel = fade.FEATURES.index("dark_channel")
    assert statistics.foggy.mean[dark_channel] > statistics.fog_free.mean[dark_channel]
