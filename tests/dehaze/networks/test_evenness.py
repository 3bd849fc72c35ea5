import pytest
import torch

from dehaze.networks.blocks.evenness import evened, evenness


@pytest.fixture
def photograph():
    """A photograph [1,3,96,192] in [0,1] with an even, slightly noisy sky to the left and leaves to the right."""
    noise = torch.rand(1, 3, 96, 192, generator=torch.Generator().manual_seed(0)) - 0.5
    return (0.6 + noise * torch.where(torch.arange(192) < 96, 0.004, 0.4)).clamp(0, 1)


@pytest.fixture
def wavering():
    """Maps [1,4,96,192] that waver from place to place."""
    cells = torch.rand(1, 4, 24, 48, generator=torch.Generator().manual_seed(1))
    return cells.repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.mark.parametrize("near", [3, 12])
def test_sky_is_even_and_leaves_are_not(photograph, near):
    even = evenness(photograph, near, 0.003, 0.008)
    assert even.shape == (1, 1, 96, 192)
    assert even[..., : 96 - 2 * near].min() > 0.99
    assert even[..., 96 + 2 * near :].max() < 0.01


def test_one_channel_with_something_to_see_is_enough(photograph):
    sky = photograph[..., :80].clone()
    assert evenness(sky, 3, 0.003, 0.008).min() > 0.99
    sky[:, 2] = photograph[:, 2, :, 96:176]
    assert evenness(sky, 3, 0.003, 0.008).max() < 0.01


def test_maps_are_averaged_over_the_sky_and_stay_among_leaves(photograph, wavering):
    result = evened(wavering, photograph, kept=0)
    assert result[..., :80].std((2, 3)).max() < 0.25 * wavering[..., :80].std((2, 3)).min()
    torch.testing.assert_close(result[..., :80].mean((2, 3)), wavering[..., :80].mean((2, 3)), atol=0.03, rtol=0)
    torch.testing.assert_close(result[..., 104:], wavering[..., 104:], atol=1e-3, rtol=0)


def test_leaves_have_no_part_in_the_average(photograph, wavering):
    other = wavering.clone()
    other[..., 104:] += 5
    torch.testing.assert_close(
        evened(other, photograph, kept=0)[..., :90], evened(wavering, photograph, kept=0)[..., :90]
    )


def test_what_changes_slowly_follows(photograph):
    slope = torch.linspace(0, 1, 192).expand(1, 2, 96, 192)
    torch.testing.assert_close(evened(slope, photograph, kept=0), slope, atol=0.1, rtol=0)


def test_fine_detail_is_kept_by_its_share_and_blotches_are_not(photograph):
    generator = torch.Generator().manual_seed(2)
    grain, blotches = torch.rand(1, 1, 96, 80, generator=generator), torch.rand(1, 1, 6, 5, generator=generator)
    blotches = blotches.repeat_interleave(16, 2).repeat_interleave(16, 3)
    sky = photograph[..., :80]
    none, half, all_ = (evened(grain, sky, kept=kept) for kept in (0, 0.5, 1))
    torch.testing.assert_close(half, (none + all_) / 2)
    assert none.std() < 0.1 * grain.std()
    assert all_.std() > 0.8 * grain.std()
    assert evened(blotches, sky, kept=1).std() < 0.6 * blotches.std()


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 7)])
def test_small_maps(size):
    maps, image = torch.rand(2, 3, *size), torch.full((2, 3, *size), 0.5)
    result = evened(maps, image, kept=0)
    assert result.shape == maps.shape
    assert (result >= maps.amin((2, 3), keepdim=True) * 0.999).all()
    assert (result <= maps.amax((2, 3), keepdim=True)).all()
