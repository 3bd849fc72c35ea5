from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

import dehaze
from dehaze.dehazer import _spans
from dehaze.density import Haze
from dehaze.errors import ImageError, UnknownModelError
from dehaze.networks.api.network import API, APIConfig
from dehaze.networks.base import Network, PredictsMaps, TakesInstruction

sides = st.integers(1, 70)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["api", "dcp", "identity"])
@settings(max_examples=12, deadline=None)
@given(height=sides, width=sides, mode=st.sampled_from(["RGB", "L", "RGBA", "LA", "P", "CMYK", "I;16", "1"]))
def test_any_size_and_mode_comes_out_at_its_own_size(name, height, width, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    photo = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else photo.convert(mode)
    restoration = loaded(name)(photo)
    assert restoration.image.size == (width, height)
    assert restoration.image.mode == {"P": "RGB", "CMYK": "RGB", "1": "L"}.get(mode, mode)
    assert restoration.pixels.shape == (height, width, 3)
    if restoration.density is not None:
        assert restoration.density.shape == (height, width)


_LOADED: dict[str, dehaze.Dehazer] = {}


def loaded(name: str) -> dehaze.Dehazer:
    return _LOADED.setdefault(name, dehaze.load(name, device="cpu"))


def test_identity_returns_the_very_pixels():
    pixels = np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    assert np.array_equal(loaded("identity")(pixels).pixels, pixels)


def test_sixteen_bits_are_kept():
    pixels = np.random.default_rng(1).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    result = loaded("identity")(pixels).pixels
    assert result.dtype == np.uint16
    assert np.array_equal(result, pixels)


def test_strength_blends_from_the_input_to_the_restoration(halve):
    pixels = np.full((8, 8, 3), 200, np.uint8)
    assert [halve(pixels, strength).pixels[0, 0, 0] for strength in (0, 0.5, 1, 1.5)] == [200, 150, 100, 50]
    for wrong in (-1.1, 1.6, float("nan")):
        with pytest.raises(ValueError, match="must lie between -1"):
            halve(pixels, wrong)


def test_density_and_seconds_are_told(halve, blur):
    restoration = halve(np.zeros((5, 7, 3), np.uint8))
    assert restoration.density == pytest.approx(np.full((5, 7), 0.25))
    assert restoration.seconds > 0
    assert restoration.model == "test"
    assert blur(np.zeros((5, 7, 3), np.uint8)).density is None


@pytest.mark.parametrize("shape", [(97, 97), (100, 300), (411, 120), (1000, 20)])
def test_tiles_of_a_local_network_equal_the_whole(blur, shape):
    hazy = torch.rand(1, 3, *shape)
    whole, _ = replace(blur, tile=0).restore_tensor(hazy)
    tiled, _ = blur.restore_tensor(hazy)
    # A tile's own border sees mirrored surroundings, weighted almost 0; all else is equal.
    torch.testing.assert_close(tiled, whole, atol=0.05, rtol=0)
    assert (tiled - whole).abs().mean() < 2e-3


def test_tiles_draw_no_seams(blur):
    ramp = torch.linspace(0, 1, 400).expand(1, 3, 300, 400)
    tiled, _ = blur.restore_tensor(ramp)
    inside = tiled[..., 10:-10, 10:-10]
    torch.testing.assert_close(inside, ramp[..., 10:-10, 10:-10], atol=2e-3, rtol=0)


class LocalMean(NamedTuple):
    mean: torch.Tensor


class Mean(PredictsMaps):
    """Subtract the local mean, a smooth map at half resolution, and call it the density."""

    multiple_of, min_size, margin, tile_size, maps_scale = 4, 8, 8, 100, 2

    def __init__(self):
        super().__init__()
        self.seen = 0

    def maps(self, hazy):
        self.seen = hazy[0, 0].numel()
        return LocalMean(F.avg_pool2d(hazy.mean(1, keepdim=True), 2))

    @staticmethod
    def apply_maps(hazy, maps):
        mean = F.interpolate(maps.mean, size=hazy.shape[-2:], mode="bilinear")
        return hazy - mean + 0.5, mean

    @staticmethod
    def change_maps(maps, change):
        """Of a change without gains, whose offset is grey."""
        return LocalMean(0.5 - change.share * (0.5 - maps.mean) - change.offset[:, :1])


@pytest.mark.parametrize("shape", [(300, 401), (1001, 333), (90, 1300)])
def test_a_large_photograph_takes_its_maps_from_a_reduced_copy(shape):
    """On a ramp the maps fit exactly wherever they come from, unless they are shifted."""
    height, width = shape
    hazy = (torch.linspace(0, 0.7, width) + torch.linspace(0, 0.3, height)[:, None]).expand(1, 3, height, width)
    network = Mean()
    restored, density = dehaze.Dehazer("mean", network, torch.device("cpu"), torch.float32).restore_tensor(hazy)
    assert network.seen < 2 * network.tile_size**2 < height * width
    inside = (..., slice(20, -20), slice(20, -20))
    torch.testing.assert_close(restored[inside], torch.full_like(hazy, 0.5)[inside], atol=3e-3, rtol=0)
    torch.testing.assert_close(density[inside], hazy[:, :1][inside], atol=3e-3, rtol=0)


class Told(TakesInstruction):
    """Subtract a map and a number that it is given."""

    multiple_of, min_size, margin, tile_size = 8, 8, 8, 96
    instructions, clip, embedding_size = ("density", "embedding"), "shipped", 3

    def forward(self, hazy, density, embedding):
        assert density.shape[-2:] == hazy.shape[-2:]
        assert embedding.shape == (len(hazy), 3)
        return hazy - density - embedding[:, :, None, None] / 10


class Clip:
    """Stand in for a CLIP model: a density that rises from left to right, and the mean colour as the embedding."""

    def __init__(self):
        self.asked = []

    def __call__(self, hazy):
        self.asked.append(tuple(hazy.shape))
        ramp = torch.linspace(0, 0.5, hazy.shape[-1]).expand(len(hazy), 1, *hazy.shape[-2:])
        return Haze(ramp.contiguous(), torch.zeros(len(hazy)), hazy.mean((2, 3)))


@pytest.mark.parametrize("shape", [(50, 70), (230, 301)])
def test_what_a_network_must_be_told_is_found_once_and_cut_with_the_tiles(shape):
    clip, hazy = Clip(), torch.full((1, 3, *shape), 0.8)
    restored, density = dehaze.Dehazer("told", Told(), torch.device("cpu"), torch.float32, clip=clip).restore_tensor(
        hazy
    )
    assert clip.asked == [(1, 3, *shape)]
    expected = torch.linspace(0, 0.5, shape[1]).expand(1, 1, *shape)
    torch.testing.assert_close(density, expected)
    torch.testing.assert_close(restored, (0.8 - 0.08 - expected).expand_as(hazy))


def test_the_callers_tensor_is_left_alone(halve):
    hazy = torch.full((1, 3, 8, 8), 1.5)
    for dehazer in (halve, loaded("identity")):
        assert dehazer.restore_tensor(hazy)[0].max() <= 1
        assert (hazy == 1.5).all()


@given(length=st.integers(1, 5000), tile=st.integers(64, 1536))
def test_tiles_cover_every_pixel_once_in_sum(length, tile):
    total = torch.zeros(length)
    for start, weights in _spans(length, tile, min(128, tile // 4)):
        assert len(weights) <= tile
        total[start : start + len(weights)] += weights
    torch.testing.assert_close(total, torch.ones(length))


def test_a_margin_keeps_rings_from_the_borders():
    """A constant image stays constant up to its border."""
    torch.manual_seed(0)
    network = API(APIConfig(two_sizes=False)).eval()
    torch.nn.init.normal_(network.head.weight, std=0.02)
    dehazer = dehaze.Dehazer("api", network, torch.device("cpu"), torch.float32)
    restored, _ = dehazer.restore_tensor(torch.full((1, 3, 128, 128), 0.6))
    at_border = (restored - restored[..., 64:65, 64:65]).abs().max()
    bare, _ = replace(dehazer, network=WithoutMargin(network)).restore_tensor(torch.full((1, 3, 128, 128), 0.6))
    assert at_border < (bare - bare[..., 64:65, 64:65]).abs().max()


class WithoutMargin(Network):
    multiple_of, min_size, margin, tile_size = 32, 32, 0, None

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, hazy):
        return self.network(hazy)


def test_bfloat16_is_near_float32():
    hazy = torch.rand(1, 3, 64, 64)
    exact, _ = loaded("api").restore_tensor(hazy)
    fast, _ = dehaze.load("api", device="cpu", dtype="bfloat16").restore_tensor(hazy)
    assert fast.dtype == torch.float32
    assert (fast - exact).abs().mean() < 0.01


def test_wrong_choices_are_explained():
    with pytest.raises(UnknownModelError, match="Did you mean dcp"):
        dehaze.load("dcpp")
    with pytest.raises(ValueError, match="cannot be used here"):
        dehaze.load("identity", device="cuda:99")
    with pytest.raises(ValueError, match="float32, bfloat16 or float16"):
        dehaze.load("identity", dtype="float64")
    with pytest.raises(ValueError, match="too small"):
        dehaze.load("identity", tile=8)
    with pytest.raises(ImageError):
        loaded("identity")(b"")


def test_models_that_need_no_download_are_listed():
    assert {"api", "dcp", "identity"} <= set(dehaze.list_models())


class Rising(Network):
    """A K-form network, `J = clip(K·I − K + 1)`, whose K rises from the left of the image to the right."""

    def forward(self, hazy):
        k = torch.linspace(1.0, 1.6, hazy.shape[-1])
        return (k * hazy - k + 1).clamp(0, 1)


@pytest.fixture
def textured() -> torch.Tensor:
    """Fine stripes on a bright and on a dark half, between which there is a sharp edge."""
    hazy = 0.3 + 0.4 * (torch.arange(1200) >= 603) + 0.05 * (torch.arange(1200) % 4 >= 2)
    return (hazy + 0.1 * torch.linspace(0, 1, 900)[:, None]).expand(1, 3, 900, 1200).contiguous()


def test_fast_follows_a_reduced_copy_and_keeps_edges_and_texture(textured, monkeypatch):
    monkeypatch.setattr("dehaze.dehazer.FAST_PIXELS", 300 * 400)
    exact = dehaze.Dehazer("rising", Rising(), torch.device("cpu"), torch.float32)
    whole, _ = exact.restore_tensor(textured)
    followed, density = replace(exact, fast=True).restore_tensor(textured)
    assert density is None
    assert followed.shape == whole.shape
    enlarged = F.interpolate(F.interpolate(whole, size=(300, 400), mode="area"), size=(900, 1200), mode="bilinear")
    error, error_enlarged = (followed - whole).square().mean(), (enlarged - whole).square().mean()
    assert error < 0.02 * error_enlarged
    assert (followed - whole).abs().max() < 0.02


def test_fast_leaves_small_photographs_alone(monkeypatch):
    hazy = torch.rand(1, 3, 40, 50)
    exact = dehaze.Dehazer("rising", Rising(), torch.device("cpu"), torch.float32)
    for pixels, equal in ((40 * 50, True), (40 * 50 - 1, False)):
        monkeypatch.setattr("dehaze.dehazer.FAST_PIXELS", pixels)
        assert torch.equal(replace(exact, fast=True).restore_tensor(hazy)[0], exact.restore_tensor(hazy)[0]) == equal


def test_fast_keeps_the_density_and_bounds_what_the_network_sees(halve, monkeypatch):
    monkeypatch.setattr("dehaze.dehazer.FAST_PIXELS", 30 * 40)
    seen = []
    monkeypatch.setattr(halve.network, "restore_with_density", watched(halve.network.restore_with_density, seen))
    hazy = (torch.rand(2, 3, 90, 120) + torch.linspace(0, 1, 120)) / 2
    restored, density = replace(halve, fast=True).restore_tensor(hazy)
    assert [tuple(image.shape) for image in seen] == [(2, 3, 30, 40)]
    torch.testing.assert_close(restored, hazy / 2, atol=0.02, rtol=0)
    torch.testing.assert_close(density, torch.full((2, 1, 90, 120), 0.25))


def watched(function, seen):
    return lambda image: (seen.append(image), function(image))[1]


def test_a_network_with_maps_takes_them_from_a_reduced_copy_anyway(monkeypatch):
    monkeypatch.setattr("dehaze.dehazer.FAST_PIXELS", 10)
    hazy = torch.rand(1, 3, 120, 130)
    exact = dehaze.Dehazer("mean", Mean(), torch.device("cpu"), torch.float32)
    assert torch.equal(replace(exact, fast=True).restore_tensor(hazy)[0], exact.restore_tensor(hazy)[0])


def test_fast_does_not_change_the_callers_tensor(halve, monkeypatch):
    monkeypatch.setattr("dehaze.dehazer.FAST_PIXELS", 10)
    hazy = torch.full((1, 3, 8, 8), 0.5)
    replace(halve, fast=True).restore_tensor(hazy)
    assert (hazy == 0.5).all()


def test_the_limit_of_megapixels_can_be_raised_as_its_error_says(blur, tmp_path):
    array = np.full((40, 50, 3), 0.5, np.float32)
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    for source in (array, tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), Image.new("RGB", (50, 40))):
        with pytest.raises(ImageError, match="Or raise max_megapixels"):
            blur(source, max_megapixels=0.0019)
        assert blur(source, max_megapixels=0.002).pixels.shape == (40, 50, 3)
