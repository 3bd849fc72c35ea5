import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.training.losses.iicl import IICL, extreme_patches, inter_contrast, intra_contrast


class Toy(nn.Module):
    """Two taps that numpy can follow: the image, and at half the resolution its channels and their squares."""

    def forward(self, images: Tensor) -> list[Tensor]:
        small = F.avg_pool2d(images, 2)
        return [images, torch.cat([small, small**2], 1)]


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def of_patches(levels: list[list[float]], patch: int = 4) -> Tensor:
    return torch.tensor(levels).repeat_interleave(patch, 0).repeat_interleave(patch, 1).expand(1, 3, -1, -1)


class TestRanking:
    def test_brightest_first_and_darkest_last(self):
        image = of_patches([[0.1, 0.9, 0.5], [0.6, 0.3, 0.7]])
        assert extreme_patches(image, 4, 2).tolist() == [[1, 5, 4, 0]]
        assert extreme_patches(image, 4, 1).tolist() == [[1, 0]]

    def test_each_image_of_a_batch_has_its_own(self):
        images = torch.cat([of_patches([[0.1, 0.9]]), of_patches([[0.9, 0.1]])])
        assert extreme_patches(images, 4, 1).tolist() == [[1, 0], [0, 1]]

    def test_of_equally_bright_patches_the_earlier_is_brighter(self):
        assert extreme_patches(torch.full((1, 3, 12, 12), 0.5), 4, 2).tolist() == [[0, 1, 7, 8]]
        assert extreme_patches(of_patches([[0.5, 0.9, 0.5], [0.1, 0.5, 0.1]]), 4, 2).tolist() == [[1, 0, 3, 5]]

    def test_few_patches_are_shared_out(self):
        assert extreme_patches(of_patches([[0.2, 0.4, 0.3]]), 4, 4).tolist() == [[1, 0]]
        assert extreme_patches(of_patches([[0.2]]), 4, 4).shape == (1, 0)

    def test_an_image_smaller_than_a_patch_has_none(self):
        for height, width in ((3, 3), (3, 20), (20, 3)):
            assert extreme_patches(torch.rand(2, 3, height, width), 4, 4).shape == (2, 0)

    def test_what_exceeds_whole_patches_does_not_count(self):
        image = F.pad(of_patches([[0.1, 0.9, 0.5]]), (0, 3, 0, 2), value=1.0)
        assert extreme_patches(image, 4, 1).tolist() == [[1, 0]]

    def test_green_is_brighter_than_blue(self):
        image = torch.zeros(1, 3, 4, 8)
        image[:, 2, :, :4], image[:, 1, :, 4:] = 1.0, 1.0
        assert extreme_patches(image, 4, 1).tolist() == [[1, 0]]


def test_both_halves_agree_with_plain_loops():
    hazy, clear, *stages = random_images(5, 2, 3, 12, 16)
    weights, temperature = (0.25, 1.0), 0.2
    loss = IICL(Toy(), inter=0.3, intra=0.2, patch=4, count=3, weights=weights, temperature=temperature)
    terms = loss(hazy, stages, clear)

    def taps(image: np.ndarray) -> list[np.ndarray]:
        small = image.reshape(3, image.shape[1] // 2, 2, image.shape[2] // 2, 2).mean((2, 4))
        return [image, np.concatenate([small, small**2])]

    def patch_means(image: np.ndarray) -> list[np.ndarray]:
        tap = taps(image)[1]
        means = [tap[:, r : r + 2, c : c + 2].mean((1, 2)) for r in range(0, 6, 2) for c in range(0, 8, 2)]
        return [mean / np.linalg.norm(mean) for mean in means]

    inter = intra = 0.0
    for b in range(2):
        i, c, j0, j1, j = (image[b].double().numpy() for image in (hazy, clear, *stages))
        for level, weight in enumerate(weights):
            near = np.abs(taps(j)[level] - taps(c)[level]).mean()
            far = shares = 0
            for share, negative in ((1, i), (2, j0), (4, j1)):
                if np.abs(taps(negative)[level] - taps(c)[level]).mean() >= near:
                    far += share * np.abs(taps(j)[level] - taps(negative)[level]).mean()
                    shares += share
            far /= max(shares, 1)
            inter += weight * near / (near + far) / 2
        grey = np.tensordot([0.299, 0.587, 0.114], i, 1)
        brightness = [grey[r : r + 4, k : k + 4].mean() for r in range(0, 12, 4) for k in range(0, 16, 4)]
        order = sorted(range(12), key=lambda place: -brightness[place])
        restored, positive, negative = (patch_means(image) for image in (j, c, i))
        for own, opposite in ((order[:3], order[-3:]), (order[-3:], order[:3])):
            for place in own:
                near = math.exp(restored[place] @ positive[place] / temperature)
                far = math.exp(restored[place] @ negative[place] / temperature)
                far += sum(math.exp(restored[place] @ restored[other] / temperature) for other in opposite)
                intra += -math.log(near / (near + far)) / 12
    assert terms["inter"].item() == pytest.approx(0.3 * inter, rel=1e-4)
    assert terms["intra"].item() == pytest.approx(0.2 * intra, rel=1e-4)


@pytest.mark.parametrize("half", ["inter", "intra"])
def test_gradients_lead_to_the_clear_image_and_off_the_hazy_one(half):
    clear = 0.6 * random_images(2, 3, 16, 16)
    hazy = 0.4 * clear + 0.6 * torch.tensor([0.7, 0.8, 0.9]).view(3, 1, 1)
    stages = [hazy.lerp(clear, share) for share in (0.2, 0.4, 0.6)]
    restored = stages[-1].requires_grad_()
    loss = IICL(Toy(), patch=4)
    before = loss(hazy, stages, clear)[half]
    (gradient,) = torch.autograd.grad(before, restored)
    assert ((clear - restored) * -gradient).sum() > 0
    assert ((hazy - restored) * -gradient).sum() < 0
    with torch.no_grad():
        after = loss(hazy, [*stages[:-1], restored - 1e-2 * gradient / gradient.norm()], clear)[half]
    assert after < before


def test_a_patch_is_pushed_off_those_of_the_opposite_extreme():
    """Positive and hazy patch are the anchor itself, so that only the opposite one has a say."""
    restored = torch.tensor([[[1.0, 0.2], [0.2, 1.0]]], requires_grad=True)
    same = restored.detach()
    (gradient,) = torch.autograd.grad(intra_contrast(restored, same, same, 0.1), restored)
    for anchor, opposite in ((0, 1), (1, 0)):
        assert gradient[0, anchor] @ same[0, opposite] > 0  # descent turns it away


def levels(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


def test_nearer_stages_weigh_more():
    """The clear image is 0.1 from the result, the negatives are 0.1 and 0.4 on the other side."""
    rising = inter_contrast(levels(0.0), levels(0.1, -0.4, -0.1))
    falling = inter_contrast(levels(0.0), levels(0.1, -0.1, -0.4))
    assert rising.item() == pytest.approx(0.1 / (0.1 + 0.2), rel=1e-4)
    assert falling.item() == pytest.approx(0.1 / (0.1 + 0.3), rel=1e-4)


def test_a_stage_that_was_better_does_not_push():
    assert inter_contrast(levels(0.0), levels(0.3, -0.1, 0.2)).item() == pytest.approx(0.3 / 0.4, rel=1e-4)
    in_each_sample = inter_contrast(levels(0.0, 0.25), levels(0.3, 0.3, -0.1, -0.1, 0.2, 0.2)).item()
    expected = (0.3 / 0.4 + 0.05 / (0.05 + (0.35 + 2 * 0.05) / 3)) / 2
    assert in_each_sample == pytest.approx(expected, rel=1e-4)


def test_gradients_reach_the_last_stage_alone():
    hazy, clear, *stages = (image.requires_grad_() for image in random_images(5, 1, 3, 16, 16))
    sum(IICL(Toy(), patch=4)(hazy, stages, clear).values()).backward()
    assert stages[-1].grad.abs().sum() > 0
    assert all(image.grad is None for image in (hazy, clear, *stages[:-1]))


def test_stages_that_are_all_the_hazy_image_cost_no_more_than_the_weights():
    hazy, clear = random_images(2, 1, 3, 16, 16)
    restored = hazy.clone().requires_grad_()
    terms = IICL(Toy(), weights=(0, 1), inter=1, patch=4)(hazy, [hazy, hazy, restored], clear)
    assert terms["inter"].item() == pytest.approx(1, abs=1e-4)
    sum(terms.values()).backward()
    assert restored.grad.isfinite().all()


def test_an_image_smaller_than_a_patch_is_contrasted_with_others_alone():
    hazy, clear, *stages = random_images(4, 2, 3, 6, 10)
    terms = IICL(Toy(), patch=8)(hazy, stages, clear)
    assert terms["inter"] > 0
    assert terms["intra"] == 0


def test_what_exceeds_whole_patches_is_left_out():
    images = random_images(4, 1, 3, 14, 18)
    loss = IICL(Toy(), patch=4)
    whole = loss(images[0], [*images[2:]], images[1])
    cut = images[..., :12, :16]
    for key, term in loss(cut[0], [*cut[2:]], cut[1]).items():
        assert term == whole[key]


def test_precision_around_changes_little():
    """Cosines are near each other, and at a temperature of 0.1 rounding them to bfloat16 would show."""
    features = [1 + random_images(1, 8, 64, seed=seed) for seed in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        within = intra_contrast(*features, 0.1)
    torch.testing.assert_close(within, intra_contrast(*features, 0.1))
