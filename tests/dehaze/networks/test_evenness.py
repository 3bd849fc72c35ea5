import pytest
import torch

from dehaze.networks.blocks.evenness import MAPS, evened, evenness


@pytest.fixture
def photograph():
    """A photograph [1,3,96,192] in [0,1] with an even, slightly noisy sky to the left and leaves to the right."""
    noise = torch.rand(1, 3, 96, 192, generator=torch.Generator().manual_seed(0)) - 0.5
    return (0.6 + noise * torch.where(torch.arange(192) < 96, 0.004, 0.4)).clamp(0, 1)


@pytest.fixture
def blotches():
    """Maps [1,4,96,192] that change from one field of 16² to the next."""
    fields = torch.rand(1, 4, 6, 12, generator=torch.Generator().manual_seed(1))
    return fields.repeat_interleave(16, 2).repeat_interleave(16, 3)


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


def test_blotches_go_from_the_sky_and_stay_among_leaves(photograph, blotches):
    result = evened(blotches, evenness(photograph, *MAPS))
    assert result[..., :80].std((2, 3)).max() < 0.6 * blotches[..., :80].std((2, 3)).min()
    torch.testing.assert_close(result[..., :80].mean((2, 3)), blotches[..., :80].mean((2, 3)), atol=0.05, rtol=0)
    assert torch.equal(result[..., 108:], blotches[..., 108:])


def test_leaves_have_no_part_in_the_average(photograph, blotches):
    other = blotches.clone()
    other[..., 108:] += 5
    torch.testing.assert_close(
        evened(other, evenness(photograph, *MAPS))[..., :90], evened(blotches, evenness(photograph, *MAPS))[..., :90]
    )


def test_fine_detail_stays(photograph):
    detail = torch.rand(1, 1, 96, 80, generator=torch.Generator().manual_seed(2))
    result = evened(detail, evenness(photograph[..., :80], *MAPS))
    assert torch.corrcoef(torch.stack([result.flatten(), detail.flatten()]))[0, 1] > 0.95
    assert result.std() > 0.8 * detail.std()


def test_what_changes_slowly_follows(photograph):
    slope = torch.linspace(0, 1, 192).expand(1, 2, 96, 192)
    torch.testing.assert_close(evened(slope, evenness(photograph, *MAPS)), slope, atol=0.1, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 7)])
def test_small_maps(size):
    maps, even = torch.rand(2, 3, *size), evenness(torch.full((2, 3, *size), 0.5), *MAPS)
    result = evened(maps, even)
    assert result.shape == maps.shape
    assert result.isfinite().all()
