import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from bench.errors import DatasetError
from bench.haze_check import agreement, compare, contrast, dark_channel, read_folder, saturation
from bench.metrics.fade import fog_density, refitted_statistics
from dehaze.haze import scatter


def scenes(count: int, transmission: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clear = torch.rand(count, 3, 48, 64, generator=generator)
    t = torch.full((1, 1, 48, 64), transmission)
    return list(scatter(clear, t, torch.full((3, 1, 1), 0.9)))


def test_statistics_of_known_images():
    half_red = torch.zeros(3, 40, 40)
    half_red[0, :, 20:] = 1.0
    half_red[1, :, 20:] = 0.5
    assert dark_channel(half_red) == 0
    assert dark_channel(torch.full((3, 40, 40), 0.7)) == pytest.approx(0.7)
    assert saturation(half_red) == pytest.approx(0.5)  # full on one half, none on the black one
    assert contrast(half_red) == pytest.approx((0.299 + 0.5 * 0.587) / 2, abs=1e-6)


def test_a_minimum_spreads_over_15_pixels():
    image = torch.ones(3, 45, 45)
    image[1, 22, 22] = 0
    assert dark_channel(image) == pytest.approx(1 - 15**2 / 45**2)


def test_the_same_images_are_at_no_distance_and_haze_is_far_from_none():
    statistics = refitted_statistics()
    same = compare(scenes(6), scenes(6), statistics)
    assert {distance.ks for distance in same.values()} == {0.0}
    apart = compare(scenes(6, 0.3), scenes(6), statistics)
    assert {name: distance.ks for name, distance in apart.items()} == dict.fromkeys(same, 1.0)
    assert apart["FADE"].generated > apart["FADE"].real
    assert apart["contrast"].generated < apart["contrast"].real
    # Of all 924 ways to split 12 values into two sixes, two are as far apart.
    assert apart["dark channel"].p == pytest.approx(2 / 924)


def test_a_density_agrees_with_the_map_it_was_made_of():
    image = scenes(1)[0]
    image = torch.lerp(image, torch.tensor(0.9), torch.linspace(0, 1, 64).expand(48, 64))
    fade = torch.from_numpy(np.nan_to_num(fog_density(image, refitted_statistics()).map)).float()
    density = F.interpolate(fade[None, None], scale_factor=8)[0, 0]
    assert agreement(density, image, refitted_statistics()) == pytest.approx(1)
    assert agreement(-density, image, refitted_statistics()) == pytest.approx(-1)


def test_a_folder_is_read_at_one_scale(tmp_path):
    for i, size in enumerate([(960, 640), (200, 100)]):
        Image.new("RGB", size, (255, 0, 0)).save(tmp_path / f"{i}.png")
    large, small = read_folder(tmp_path)
    assert large.shape == (3, 320, 480)
    assert small.shape == (3, 96, 192)
    assert torch.equal(small[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    (tmp_path / "1.png").unlink()
    with pytest.raises(DatasetError, match="fewer than two images"):
        read_folder(tmp_path)
