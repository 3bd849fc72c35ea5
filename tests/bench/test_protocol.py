"""Every protocol against a computation of its own, by numpy, scipy and scikit-image."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage, stats
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from typer.testing import CliRunner

from bench import cli, metrics, protocol, record
from bench.errors import ProtocolError
from bench.metrics import MetricError
from bench.report import table


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1600, 1200), (800, 600)), ((1200, 1600), (600, 800)), ((801, 333), (800, 333)), ((2000, 1), (800, 1))],
)
def test_long800_brings_the_long_side_to_800(size, expected):
    rules = protocol.get("long800-v1")
    image = noise(*size)
    prepared = rules.prepare(image)
    assert prepared.size == rules.size(*size) == expected
    assert np.array_equal(prepared, image.resize(expected, Image.Resampling.LANCZOS))


def test_long800_never_enlarges():
    image = noise(640, 480)
    assert protocol.get("long800-v1").prepare(image) is image


def test_eight_bit_rounds():
    every = np.arange(65536, dtype=np.uint16).reshape(1, -1)
    assert np.array_equal(protocol.eight_bit(every), np.round(every / 257).astype(np.uint8))
    assert protocol.eight_bit(np.uint8([[3]])).tolist() == [[3]]
    with pytest.raises(TypeError, match="float64"):
        protocol.eight_bit(np.zeros((1, 1)))


def test_unknown_protocol_suggests():
    with pytest.raises(ProtocolError, match="native-v1"):
        protocol.get("native")
    assert protocol.names() == [
        *("dehazeformer-v1", "draco-v1", "ffa-v1", "fixed-camera-v1", "long800-v1", "luma-v1", "native-v1"),
    ]


@pytest.mark.parametrize("name", ["native-v1", "ffa-v1", "dehazeformer-v1", "luma-v1"])
def test_full_size_protocols_leave_images_alone(name):
    image = noise(1001, 37)
    assert protocol.get(name).prepare(image) is image


@pytest.mark.parametrize("size", [(1600, 1200), (300, 700), (256, 256), (5, 2)])
def test_draco_squares_as_its_loader(size):
    """Nearest neighbour to 1024², then bilinear with half-pixel centres and no filter, here by torch."""
    image = noise(*size)
    large = torch.from_numpy(np.array(image.resize((1024, 1024), Image.Resampling.NEAREST))).permute(2, 0, 1)[None]
    expected = F.interpolate(large.double(), (256, 256), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    rules = protocol.get("draco-v1")
    prepared = rules.prepare(image)
    assert prepared.size == rules.size(*size) == (256, 256)
    assert np.abs(np.asarray(prepared) - expected.numpy()).max() <= 0.5


def ssim_everywhere(one, other):
    """SSIM with a Gaussian window on every pixel and zeros around the image, by scipy."""

    def smooth(plane):
        return ndimage.gaussian_filter(plane, 1.5, radius=5, mode="constant")

    values = []
    for a, b in zip(np.moveaxis(one, 2, 0), np.moveaxis(other, 2, 0), strict=True):
        mean_a, mean_b = smooth(a), smooth(b)
        covariance = smooth(a * b) - mean_a * mean_b
        variances = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
        luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        values.append(luminance * (2 * covariance + 9e-4) / (variances + 9e-4))
    return np.mean(values)


def ssim_valid(one, other, data_range=1.0):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    axis = 2 if one.ndim == 3 else None
    return structural_similarity(one, other, channel_axis=axis, data_range=data_range, **options)


def pooled(image):
    """Average pooling to the size divided by round(min(H, W) / 256): region i from ⌊i·side/n⌋ to ⌈(i + 1)·side/n⌉."""
    ratio = max(1, round(min(image.shape[:2]) / 256))
    for axis in (0, 1):
        side = image.shape[axis]
        count = int(side / ratio)
        regions = [range(math.floor(i * side / count), math.ceil((i + 1) * side / count)) for i in range(count)]
        image = np.stack([image.take(region, axis).mean(axis) for region in regions], axis)
    return image


def rgb(one, other):
    return peak_signal_noise_ratio(other, one, data_range=1), ssim_valid(one, other)


def ffa(one, other):
    return peak_signal_noise_ratio(other, one, data_range=1), ssim_everywhere(one, other)


def dehazeformer(one, other):
    return peak_signal_noise_ratio(other, one, data_range=1), ssim_valid(pooled(one), pooled(other))


def on_luma(one, other):
    one, other = (rgb2ycbcr(image)[..., 0] for image in (one, other))
    return peak_signal_noise_ratio(other, one, data_range=255), ssim_valid(one, other, data_range=255)


def draco(one, other):
    return peak_signal_noise_ratio(other, one, data_range=1), ssim_valid(one, other, data_range=2)


FAMILIES = {"native-v1": rgb, "long800-v1": rgb, "ffa-v1": ffa, "dehazeformer-v1": dehazeformer, "luma-v1": on_luma}
FAMILIES |= {"draco-v1": draco}


@pytest.fixture
def scored(tmp_path):
    """Run the identity on three pairs of a size; return the record, its rows, and the prepared images in [0, 1]."""

    def run(name, width, height):
        random, images = np.random.default_rng(width), []
        rules = protocol.get(name)
        for number, spread in enumerate((5, 20, 60)):
            clear = ndimage.gaussian_filter(random.normal(128, 300, (height, width, 3)), (4, 4, 0))
            hazy = 0.6 * clear + 60 + random.normal(0, spread, clear.shape)
            for kind, pixels in (("hazy", hazy), ("clear", clear)):
                (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
                image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
                image.save(tmp_path / "set" / kind / f"{number}.png")
                images.append(np.asarray(rules.prepare(image)) / 255)
        options = ["--dataset", f"folder:{tmp_path / 'set'}", "--metric", "psnr", "--metric", "ssim", "--device", "cpu"]
        arguments = ["run", "--model", "identity", "--protocol", name, *options, "--output", str(tmp_path / "out")]
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        [path] = (tmp_path / "out").glob("*.json")
        rows = pq.read_table(path.with_suffix(".parquet"))
        return record.read(path), rows, list(zip(images[::2], images[1::2], strict=True))

    return run


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("native-v1", (61, 47)),
        ("long800-v1", (900, 40)),
        ("ffa-v1", (61, 47)),
        ("dehazeformer-v1", (61, 47)),
        ("dehazeformer-v1", (391, 385)),  # by 2, and neither side goes up in it
        ("luma-v1", (61, 47)),
        ("draco-v1", (61, 47)),
    ],
)
def test_a_record_holds_what_the_protocol_says(scored, name, size):
    made, rows, pairs = scored(name, *size)
    psnr, ssim = np.transpose([FAMILIES[name](hazy, clear) for hazy, clear in pairs])
    assert made.protocol == name
    assert rows["psnr"].to_pylist() == pytest.approx(psnr, abs=1e-5)
    assert rows["ssim"].to_pylist() == pytest.approx(ssim, abs=1e-6)
    assert made.metrics["ssim"].mean == pytest.approx(ssim.mean(), abs=1e-6)
    if name == "draco-v1":
        hazy, clear = (np.stack(images) for images in zip(*pairs, strict=True))
        whole = peak_signal_noise_ratio(clear, hazy, data_range=1)
        assert made.metrics["psnr"].mean == pytest.approx(whole, abs=1e-5)
        assert whole < psnr.mean() - 0.1  # or the two could not be told apart
    else:
        assert made.metrics["psnr"].mean == pytest.approx(psnr.mean(), abs=1e-5)
    for summary in made.metrics.values():
        assert summary.low < summary.mean < summary.high
        assert (summary.count, summary.infinite) == (3, 0)


@pytest.mark.parametrize("name", ["ffa-v1", "native-v1", "luma-v1", "dehazeformer-v1"])
def test_images_smaller_than_the_window(name):
    one, other = torch.rand(2, 1, 3, 10, 30, generator=torch.Generator().manual_seed(0))
    metric = protocol.get(name).define(metrics.get("ssim"))
    if name == "ffa-v1":
        expected = ssim_everywhere(*(image[0].permute(1, 2, 0).double().numpy() for image in (one, other)))
        assert metric(one, other).item() == pytest.approx(expected, abs=1e-9)
    else:
        with pytest.raises(MetricError, match="11×11"):
            metric(one, other)


@pytest.mark.parametrize("name", protocol.names())
def test_definitions_take_batches_and_see_identical_images(name):
    one, other = torch.rand(2, 2, 3, 24, 30, generator=torch.Generator().manual_seed(0))
    for metric in (protocol.get(name).define(metrics.get(metric)) for metric in ("psnr", "ssim")):
        scores = metric(torch.cat([one, one[:1]]), torch.cat([other, one[:1]]))
        assert scores.shape == (3,)
        torch.testing.assert_close(
            scores[:2], torch.cat([metric(a[None], b[None]) for a, b in zip(one, other, strict=True)])
        )
        assert scores[2].item() == pytest.approx(math.inf if metric.spec.name == "psnr" else 1)


def test_other_metrics_are_left_as_they_are():
    metric = metrics.get("ciede2000")
    assert all(protocol.get(name).define(metric) == metric for name in protocol.names())


def test_pooled_psnr_is_bootstrapped_over_the_errors():
    rules = protocol.get("draco-v1")
    errors = np.random.default_rng(0).gamma(2.0, 0.01, size=40)
    mean, low, high, count = rules.aggregate("psnr", -10 * np.log10(errors))
    theirs = stats.bootstrap((errors,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert mean == pytest.approx(-10 * np.log10(errors.mean()))
    assert (low, high) == pytest.approx((-10 * np.log10(theirs.high), -10 * np.log10(theirs.low)), abs=0.05)
    assert count == 40
    assert rules.aggregate("ssim", errors)[0] == pytest.approx(errors.mean())


def test_identical_images_in_a_pool():
    rules, inf = protocol.get("draco-v1"), math.inf
    assert rules.aggregate("psnr", np.array([inf, 20.0]))[0] == pytest.approx(20 + 10 * np.log10(2))
    assert rules.aggregate("psnr", np.array([inf, 20.0]))[1:] == (None, None, 2)  # the upper bound is infinite
    assert rules.aggregate("psnr", np.array([inf, inf])) == (None, None, None, 0)
    assert rules.aggregate("psnr", np.array([])) == (None, None, None, 0)
    mean, low, high, count = rules.aggregate("psnr", np.array([20.0]))
    assert (mean, low, high, count) == (pytest.approx(20), None, None, 1)


def test_elsewhere_infinite_values_are_left_out():
    rules = protocol.get("native-v1")
    assert rules.aggregate("psnr", np.array([math.inf, 20.0])) == (20.0, None, None, 1)
    assert rules.aggregate("psnr", np.array([math.inf])) == (None, None, None, 0)


def test_records_of_one_protocol_never_land_in_the_table_of_another(make):
    found = table.tables(make(method, {"psnr": 10.0}, protocol=name) for method in "ab" for name in protocol.names())
    assert [one.protocol for one in found] == protocol.names()
    for one in found:
        assert {(entry.method.name, entry.protocol) for entry in one.records} == {(m, one.protocol) for m in "ab"}
