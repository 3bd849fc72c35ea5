import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import dehaze
from dehaze.errors import DehazeError
from dehaze.training.pairs import find_pairs
from dehaze.training.pseudo_labels import is_better, make_label, smooth_flat_regions, write_pairs


@pytest.fixture
def hazy():
    """A photograph [1,3,128,256] in [0,1] with an even, slightly noisy sky to the left and leaves to the right."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, 128, 256, generator=generator) - 0.5
    return (0.6 + noise * torch.where(torch.arange(256) < 128, 0.01, 0.4)).clamp(0, 1)


def test_blotches_in_an_even_sky_are_smoothed_and_leaves_stay(hazy):
    blocks = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(1)) - 0.5
    restored = (hazy + 0.2 * blocks.repeat_interleave(8, 2).repeat_interleave(8, 3) - 0.2).clamp(0, 1)
    smoothed = smooth_flat_regions(hazy, restored)
    assert smoothed[..., :80].std() < 0.2 * restored[..., :80].std()
    assert smoothed[..., :80].mean().item() == pytest.approx(restored[..., :80].mean().item(), abs=0.01)
    torch.testing.assert_close(smoothed[..., 170:], restored[..., 170:], atol=0.01, rtol=0)


def test_what_follows_the_photograph_stays_where_it_is_even():
    slope = torch.linspace(0.5, 0.7, 256).expand(1, 3, 128, 256)
    torch.testing.assert_close(smooth_flat_regions(slope, 2 * slope - 0.6), 2 * slope - 0.6, atol=0.02, rtol=0)


class Dimming:
    """Darken by a tenth."""

    def restore_tensor(self, hazy):
        return 0.9 * hazy, None


def test_a_label_is_the_restoration_where_the_photograph_is_uneven():
    photo = torch.rand(1, 3, 64, 161, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(make_label(Dimming(), photo), 0.9 * photo, atol=0.01, rtol=0)


def test_a_black_photograph_stays_black():
    black = torch.zeros(1, 3, 64, 64)
    assert torch.equal(make_label(Dimming(), black), black)


class Judge:
    """Take brightness for haze: a brighter image has more of it."""

    name = "judge"

    def restore_tensor(self, hazy):
        return hazy, hazy.mean(1, keepdim=True) ** 4


@pytest.mark.parametrize(
    ("change", "better"),
    [
        (lambda label, noise: label - 0.004, True),
        (lambda label, noise: label + 0.004, False),  # more haze
        (lambda label, noise: label - 0.05, False),  # darker
        (lambda label, noise: label - 0.002 + 0.05 * noise, False),  # noisier
        (lambda label, noise: label - 0.004 + torch.tensor([0.04, 0.0, -0.04]).view(1, 3, 1, 1), False),  # coloured
    ],
    ids=["less haze", "more haze", "darker", "noisier", "coloured"],
)
def test_a_better_label_has_less_haze_and_nothing_worse(hazy, change, better):
    noise = torch.rand(1, 1, 128, 256, generator=torch.Generator().manual_seed(2)) - 0.5
    last = hazy - 0.1
    assert is_better(Judge(), hazy, change(last, noise), last) == better


def test_what_has_no_density_cannot_tell_the_better_label(hazy):
    with pytest.raises(DehazeError, match="identity estimates no haze density"):
        is_better(dehaze.load("identity"), hazy, hazy, hazy)


def test_pairs_are_written_at_800_px_and_a_killed_run_goes_on(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 1000, 3), dtype=np.uint8)
    photos = [tmp_path / "wide.png", tmp_path / "small.jpg"]
    Image.fromarray(pixels).save(photos[0])
    Image.fromarray(pixels[:, :50]).save(photos[1])
    pairs = tmp_path / "pairs"
    assert write_pairs(photos, pairs, dehaze.load("dcp")) == 2
    found = [pair for part in find_pairs(pairs) for pair in part]
    assert {pair.hazy.stem for pair in found} == {"wide", "small"}
    with Image.open(pairs / "clear" / "wide.png") as wide, Image.open(pairs / "hazy" / "small.png") as small:
        assert wide.size == (800, 32)
        assert small.size == (50, 40)

    (pairs / "clear" / "wide.png").write_bytes(b"mine")
    (pairs / "clear" / "small.png").unlink()
    write_pairs(photos, pairs, dehaze.load("dcp"))
    assert (pairs / "clear" / "wide.png").read_bytes() == b"mine"
    assert (pairs / "clear" / "small.png").exists()


def test_labels_are_improved_where_there_is_a_better_one(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    photos, pairs, dehazer = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "pairs", dehaze.load("dcp")
    write_pairs(photos, pairs, dehazer)
    for name in "ab":
        Image.new("RGB", (50, 40)).save(pairs / "clear" / f"{name}.png")
    answers = iter([True, False])
    monkeypatch.setattr("dehaze.training.pseudo_labels.is_better", lambda *_: next(answers))
    write_pairs(photos, pairs, dehazer, improve=True)
    first, second = (np.asarray(Image.open(pairs / "clear" / f"{name}.png")) for name in "ab")
    assert first.any() and not second.any()


def test_two_photographs_of_one_name_are_refused(tmp_path):
    photos = [tmp_path / "a.png", tmp_path / "b" / "a.jpg"]
    with pytest.raises(DehazeError, match="Rename one of the two"):
        write_pairs(photos, tmp_path / "pairs", dehaze.load("dcp"))
    assert not (tmp_path / "pairs").exists()


@pytest.mark.slow
def test_the_command_writes_pairs_and_says_what_is_missing(tmp_path):
    Image.new("RGB", (40, 40), (150, 160, 170)).save(tmp_path / "fog.png")
    command = [sys.executable, "-m", "dehaze.training.pseudo_labels", "--model", "dcp", "--output", tmp_path / "pairs"]
    result = subprocess.run([*command, tmp_path / "fog.png"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("1 pairs in ")
    assert (tmp_path / "pairs" / "clear" / "fog.png").exists()
    result = subprocess.run([*command, tmp_path / "rain.png"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "names no photograph" in result.stderr
