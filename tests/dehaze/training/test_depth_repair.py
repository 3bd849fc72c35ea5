import pytest
import torch

from dehaze.training.depth_repair import AT_INFINITY, repair_depth

ROAD, BUILDING, TREES, SKY, NONE = 0, 2, 8, 10, 19


@pytest.fixture
def street():
    """A photograph [3,96,128] of a blue sky, trees and a road, with its depth and its classes."""
    classes = torch.full((96, 128), SKY)
    classes[30:] = TREES
    classes[60:] = ROAD
    colours = {SKY: (0.5, 0.7, 0.95), TREES: (0.2, 0.3, 0.15), ROAD: (0.4, 0.4, 0.4)}
    photo = torch.zeros(3, 96, 128)
    for class_, colour in colours.items():
        photo[:, classes == class_] = torch.tensor(colour)[:, None]
    depth = torch.ones(96, 128)
    depth[60:] = torch.linspace(0.5, 0.05, 36)[:, None]
    depth[30:60] = 0.5
    return photo, depth, classes


def test_what_is_right_stays(street):
    photo, depth, classes = street
    torch.testing.assert_close(repair_depth(photo, depth, classes), depth, atol=0.02, rtol=0)


def test_a_sky_of_finite_depth_is_at_infinity(street):
    photo, depth, classes = street
    depth[:30] = 0.7
    assert (repair_depth(photo, depth, classes)[:30] == 1).all()


def test_trees_that_lean_back_stand_at_the_depth_of_their_foot(street):
    photo, depth, classes = street
    depth[30:60] = torch.linspace(0.62, 0.5, 30)[:, None]
    repaired = repair_depth(photo, depth, classes)
    torch.testing.assert_close(repaired[34:56], torch.full((22, 128), 0.5), atol=0.02, rtol=0)


def test_a_wall_that_was_taken_for_sky_comes_back(street):
    photo, depth, classes = street
    classes[30:60] = BUILDING
    depth[30:50] = 1.0  # dark, so that its colour is no sky's
    repaired = repair_depth(photo, depth, classes)
    torch.testing.assert_close(repaired[32:48], torch.full((16, 128), 0.5), atol=0.03, rtol=0)


def test_what_differs_too_much_is_not_believed(street):
    photo, depth, classes = street
    depth[30:57] = 0.95  # a far slope behind a class that ends at a near foot
    repaired = repair_depth(photo, depth, classes)
    assert (repaired[32:50] - 0.95).abs().max() < 0.02


@pytest.mark.parametrize("class_", [SKY, NONE, TREES])
def test_nothing_but_one_class_gives_numbers(class_):
    depth = torch.rand(12, 9, generator=torch.Generator().manual_seed(0))
    repaired = repair_depth(torch.full((3, 12, 9), 0.3), depth, torch.full((12, 9), class_))
    assert repaired.isfinite().all()
    assert 0 <= repaired.min() <= repaired.max() <= 1
    if class_ != TREES:  # dark, it is no sky; and of no class, nothing is known
        assert torch.equal(repaired, depth)


def test_only_the_sky_is_at_infinity(street):
    photo, depth, classes = street
    repaired = repair_depth(photo, depth, classes)
    assert (repaired[30:60] <= AT_INFINITY).all()
