from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import dehaze
from dehaze.dehazer import Dehazer
from dehaze.errors import VideoError
from dehaze.networks.base import PredictsMaps
from dehaze.steady import SteadyDehazer

SIZE = (96, 64)  # width and height


class Brightness(NamedTuple):
    gain: torch.Tensor


class Gain(PredictsMaps):
    """A network whose map is the brightness it sees and whose result is the input times the map."""

    multiple_of, min_size, margin, tile_size, maps_scale = 1, 1, 0, 64, 4

    def maps(self, hazy):
        return Brightness(F.avg_pool2d(hazy.mean(1, keepdim=True), 4))

    @staticmethod
    def apply_maps(hazy, maps):
        full = F.interpolate(maps.gain, size=hazy.shape[-2:], mode="bilinear", align_corners=False)
        return hazy * full, full

    @staticmethod
    def change_maps(maps, change):
        """Of a change that neither adds nor tints."""
        return Brightness(1 + change.share * (maps.gain - 1))


def gain():
    return Dehazer("gain", Gain(), torch.device("cpu"), torch.float32)


def scene(seed=0):
    noise = np.random.default_rng(seed).integers(50, 205, (8, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC), np.float32) / 255


def tensor(frame):
    return torch.from_numpy(frame.transpose(2, 0, 1).copy())[None]


def test_nothing_flickers_where_the_picture_rests():
    """Noise that shakes every map on its own shakes the smoothed ones far less."""
    random = np.random.default_rng(1)
    frames = [(scene() + random.normal(0, 0.02, (*SIZE[::-1], 3))).clip(0, 1).astype(np.float32) for _ in range(30)]
    frames = [frame * random.uniform(0.97, 1.03) for frame in frames]
    alone, network = [], Gain()
    steady = SteadyDehazer(gain())
    smoothed = []
    for number, frame in enumerate(map(tensor, frames)):
        alone.append((network.apply_maps(frame, network.maps(frame))[0] / frame.clamp_min(1e-3)).mean())
        smoothed.append((steady(frame, number / 30) / frame.clamp_min(1e-3)).mean())
    change = [torch.stack(gains)[5:].diff().abs().mean() for gains in (alone, smoothed)]
    assert change[1] < change[0] / 3


def test_maps_follow_the_time_and_not_the_number_of_frames():
    """A frame that stays for 2 s lets the maps of the next count almost alone."""
    first, second = tensor(scene() * 0.5), tensor(scene() * 0.52)
    network = Gain()
    expected = network.apply_maps(second, network.maps(second))[0]
    distances = []
    for seconds in (0.03, 2):
        steady = SteadyDehazer(gain())
        steady(first, 0)
        distances.append((steady(second, seconds) - expected).abs().mean())
    assert distances[1] < distances[0] / 100


def test_a_cut_starts_afresh():
    steady = SteadyDehazer(gain())
    for number in range(5):
        steady(tensor(scene() * 0.3), number / 30)
    after = tensor(scene(7) * 0.5 + 0.5)
    network = Gain()
    expected = network.apply_maps(after, network.maps(after))[0]
    assert (steady(after, 5 / 30) - expected).abs().max() < 0.02


def test_strength_blends():
    frame = tensor(scene())
    full = SteadyDehazer(gain())(frame, 0)
    half = SteadyDehazer(gain())(frame, 0, 0.5)
    assert torch.allclose(half, (frame + full) / 2, atol=1e-6)


def test_the_shipped_model_restores_a_frame_as_a_photograph():
    frame = tensor(scene())
    dehazer = dehaze.load("api")
    restored = SteadyDehazer(dehazer)(frame, 0)
    inside = (..., slice(2, -2), slice(2, -2))  # at the border, maps end with the picture
    assert (restored - dehazer.restore_tensor(frame)[0])[inside].abs().max() < 1e-5


def test_models_without_maps_are_refused():
    with pytest.raises(VideoError, match="dcp restores every frame afresh"):
        SteadyDehazer(dehaze.load("dcp"))
