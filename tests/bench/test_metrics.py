"""What holds for every metric: specification, checks of the input, direction."""

import pytest
import torch

from bench import metrics
from bench.metrics import MetricError

WITHOUT_WEIGHTS = ["psnr", "ssim", "ciede2000", "ms_ssim", "vif", "fsim", "gmsd", "vsi", "nlpd"]
WITHOUT_WEIGHTS += ["niqe", "fade_refit", "piqe", "entropy"]


@pytest.fixture(scope="module")
def scene():
    """A smooth random scene [1, 3, 192, 208] with detail, in [0.2, 0.8]."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 12, 13, generator=generator)
    fine = torch.rand(1, 3, 96, 104, generator=generator)
    up = [torch.nn.functional.interpolate(x, size=(192, 208), mode="bicubic").clamp(0, 1) for x in (coarse, fine)]
    return 0.2 + 0.4 * up[0] + 0.2 * up[1]


def noisy(scene, sigma):
    return (scene + sigma * torch.randn(scene.shape, generator=torch.Generator().manual_seed(5))).clamp(0, 1)


@pytest.mark.parametrize("name", metrics.names())
def test_spec_describes_the_metric(name):
    spec = metrics.spec(name)
    assert spec.name == name
    assert spec.direction in ("up", "down", "one")
    assert spec.low < spec.high
    assert len(spec.definition) > 20


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_scores_are_float64_one_an_image_and_within_bounds(name, scene):
    metric = metrics.get(name)
    batch, clear = torch.cat([noisy(scene, 0.02), noisy(scene, 0.1)]), torch.cat([scene, scene])
    scores = metric(batch, clear)
    assert scores.shape == (2,) and scores.dtype == torch.float64
    assert all(metric.spec.low <= score <= metric.spec.high for score in scores)
    alone = metric(batch[1:], clear[1:])
    assert scores[1].item() == pytest.approx(alone.item(), rel=1e-4)
    if metric.spec.reference:  # less noise is better, whichever way the metric counts
        better = scores[0] > scores[1] if metric.spec.direction == "up" else scores[0] < scores[1]
        assert better


def test_reference_metric_without_clear_image(scene):
    with pytest.raises(MetricError, match="psnr compares with a clear image"):
        metrics.get("psnr")(scene)


def test_no_reference_metric_ignores_the_clear_image(scene):
    metric = metrics.get("fade_refit")
    assert metric(scene, scene[..., :32]) == metric(scene)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 32, 32), r"float tensor \[B, 3, H, W\]"),
        (torch.zeros(1, 1, 32, 32), r"float tensor \[B, 3, H, W\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 3, 0, 32), "empty"),
        (torch.full((1, 3, 32, 32), 255.0), "Scale or clip"),
        (torch.full((1, 3, 32, 32), float("nan")), "Scale or clip"),
    ],
)
def test_images_of_another_form_are_refused(image, message):
    with pytest.raises(MetricError, match=message):
        metrics.get("psnr")(image, image)


def test_sizes_must_agree():
    with pytest.raises(MetricError, match="restored one is 1 of 40×32, the clear one 1 of 32×32"):
        metrics.get("ssim")(torch.zeros(1, 3, 32, 40), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(("name", "size"), [("ssim", 10), ("fade_refit", 15), ("niqe", 96), ("ms_ssim", 40)])
def test_too_small_images_are_refused(name, size):
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with pytest.raises(MetricError, match=rf"(?i){name.removesuffix('_refit')} .* {size}×{size}"):
        metrics.get(name)(image, image)


@pytest.mark.parametrize("name", ["fade_refit", "niqe"])
def test_undefined_score_is_an_error_not_a_number(name):
    with pytest.raises(MetricError, match="undefined"):
        metrics.get(name)(torch.zeros(1, 3, 200, 200))


def test_unknown_name_suggests():
    with pytest.raises(MetricError, match=r"'nique'\. Did you mean .*niqe"):
        metrics.get("nique")
    with pytest.raises(MetricError, match="sets"):
        metrics.get("fid")
