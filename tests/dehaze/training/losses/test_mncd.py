import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.training.losses.mncd import MNCD


class Toy(nn.Module):
    """Two taps that numpy can follow: the image twice as bright, and its squares at half the resolution."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[int, bool]] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        self.calls.append((len(images), torch.is_grad_enabled()))
        return [2 * images, F.avg_pool2d(images, 2) ** 2]


def toy_in_numpy(image: np.ndarray) -> list[np.ndarray]:
    channels, height, width = image.shape
    return [2 * image, image.reshape(channels, height // 2, 2, width // 2, 2).mean((2, 4)) ** 2]


def spectrum_in_numpy(image: np.ndarray) -> list[np.ndarray]:
    """Transform by the definition, e^(−2πi(uy/H + vx/W))/√(HW), v up to W/2."""
    _, height, width = image.shape
    rows, columns = np.arange(height), np.arange(width)
    down = np.exp(-2j * np.pi * np.outer(rows, rows) / height)
    across = np.exp(-2j * np.pi * np.outer(columns[: width // 2 + 1], columns) / width)
    transformed = np.einsum("uy,cyx,vx->cuv", down, image, across) / math.sqrt(height * width)
    return [np.stack([transformed.real, transformed.imag])]


def random_images(count: int, height: int = 8, width: int = 6, seed: int = 0) -> Tensor:
    """Draw [count,2,3,H,W]: so many batches of two."""
    return torch.rand(count, 2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_both_halves_agree_with_plain_loops():
    restored, clear, *negatives = random_images(6)
    negatives[0] = torch.lerp(clear, restored, 0.5)  # better than the restored image: no negative
    spatial, frequency, temperature, eps, weights = 0.3, 0.2, 0.05, 1e-3, (0.25, 1.0)
    loss = MNCD(Toy(), spatial=spatial, frequency=frequency, weights=weights, temperature=temperature, eps=eps)
    terms = loss(restored, clear, negatives)

    expected = {"spatial": 0.0, "frequency": 0.0}
    for b in range(2):
        j, c, *n = (batch[b].double().numpy() for batch in (restored, clear, *negatives))
        n = [negative for negative in n if np.abs(negative - c).mean() >= np.abs(j - c).mean()] or n
        shares = [math.exp(-np.abs(negative - c).mean() / temperature) for negative in n]
        shares = [share / sum(shares) for share in shares]
        for key, transform, layer_weights in (
            ("spatial", toy_in_numpy, [spatial * w for w in weights]),
            ("frequency", spectrum_in_numpy, [frequency]),
        ):
            for i, weight in enumerate(layer_weights):
                near = np.abs(transform(j)[i] - transform(c)[i]).mean()
                far = sum(
                    share * np.abs(transform(j)[i] - transform(negative)[i]).mean()
                    for share, negative in zip(shares, n, strict=True)
                )
                expected[key] += weight * near / (far + eps) / 2
    assert {key: term.item() for key, term in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_the_deepest_tap_weighs_1_in_every_backbone():
    restored, clear, negative = random_images(3)
    terms = [MNCD(Toy(), **given)(restored, clear, [negative])["spatial"] for given in ({}, {"weights": (0.25, 1)})]
    assert terms[0] == terms[1]


def test_one_negative_gives_the_classic_ratio_at_any_temperature():
    restored, clear, hazy = random_images(3)
    for temperature in (0.01, 10):
        terms = MNCD(Toy(), weights=(0, 1), spatial=1, temperature=temperature, eps=1e-7)(restored, clear, [hazy])
        j, c, n = (Toy()(image)[1] for image in (restored, clear, hazy))
        ratios = [F.l1_loss(j[b], c[b]) / F.l1_loss(j[b], n[b]) for b in range(2)]
        torch.testing.assert_close(terms["spatial"], sum(ratios) / 2)


def test_hard_negatives_weigh_more_in_each_sample():
    clear = torch.full((2, 3, 4, 4), 0.5)
    near, far = clear.clone(), clear.clone()
    near[0] += 0.1
    far[0] += 0.3
    near[1] -= 0.2  # the sign of the difference does not matter
    far[1] += 0.25
    shares = MNCD(None, temperature=0.1).hardness(clear, clear, [near, far])
    torch.testing.assert_close(shares.sum(0), torch.ones(2))
    torch.testing.assert_close(shares[0] / shares[1], torch.tensor([math.exp(2), math.exp(0.5)]))


def test_what_is_better_than_the_restored_image_is_no_negative():
    clear = torch.full((3, 3, 4, 4), 0.5)
    near, far, restored = clear + 0.1, clear + 0.3, clear.clone()
    restored[0] += 0.05
    restored[1] += 0.2
    restored[2] += 0.4  # worse than both: then both are negatives
    shares = MNCD(None, temperature=0.1).hardness(restored, clear, [near, far])
    both = 1 / (1 + math.exp(-2))
    torch.testing.assert_close(shares[0], torch.tensor([both, 0.0, both]))


def test_a_restored_image_like_the_clear_one_costs_nothing():
    _, clear, *negatives = random_images(4)
    assert all(term == 0 for term in MNCD(Toy())(clear.clone(), clear, negatives).values())
    assert all(term == 0 for term in MNCD(Toy())(clear.clone(), clear, [clear, *negatives]).values())


def test_a_restored_image_like_its_only_negative_costs_much_and_stays_finite():
    _, clear, hazy = random_images(3)
    restored = hazy.clone().requires_grad_()
    terms = MNCD(Toy(), weights=(0, 1), spatial=1, eps=1e-3)(restored, clear, [hazy])
    j, c = (Toy()(image)[1] for image in (hazy, clear))
    torch.testing.assert_close(terms["spatial"], F.l1_loss(j, c) / 1e-3)
    sum(terms.values()).backward()
    assert restored.grad.isfinite().all()
    assert restored.grad.abs().sum() > 0


@pytest.mark.parametrize("term", ["spatial", "frequency"])
def test_gradients_lead_to_the_clear_image(term):
    start, clear, *negatives = random_images(5, seed=3)
    restored = start.clone().requires_grad_()
    loss = MNCD(Toy())
    before = loss(restored, clear, negatives)[term]
    (gradient,) = torch.autograd.grad(before, restored)
    assert ((clear - restored) * -gradient).sum() > 0
    assert loss(restored - 1e-3 * gradient / gradient.norm(), clear, negatives)[term] < before


def test_gradients_lead_away_from_the_nearest_negative():
    clear = torch.full((1, 3, 4, 4), 0.5)
    start = clear.clone()
    start[..., 2:] = 0.7  # the right half still has a way to go; in the left half the negatives alone have a say
    above, below = clear + 0.1, clear - 0.4

    def left_gradient(negatives: list[Tensor], temperature: float = 0.1) -> Tensor:
        restored = start.clone().requires_grad_()
        terms = MNCD(Toy(), weights=(1, 0), temperature=temperature)(restored, clear, negatives)
        return torch.autograd.grad(terms["spatial"], restored)[0][..., :2]

    assert (left_gradient([above]) > 0).all()  # descent goes down, away from what is brighter
    assert (left_gradient([below]) < 0).all()
    assert (left_gradient([above, below]) > 0).all()
    assert left_gradient([above, below], temperature=1e4).abs().max() < 1e-3 * left_gradient([above]).abs().max()


def test_gradients_reach_the_restored_image_alone():
    images = [image.clone().requires_grad_() for image in random_images(4)]
    restored, clear, *negatives = images
    sum(MNCD(Toy())(restored, clear, negatives).values()).backward()
    assert restored.grad.abs().sum() > 0
    assert all(image.grad is None for image in (clear, *negatives))


def test_the_references_pass_the_backbone_once_and_without_gradients():
    restored, clear, *negatives = random_images(5)
    features = Toy()
    MNCD(features)(restored, clear, negatives)
    assert sorted(features.calls) == [(2, True), (8, False)]


def test_a_batch_costs_the_mean_of_its_samples():
    batch = random_images(4)
    loss = MNCD(Toy())
    whole = loss(batch[0], batch[1], [*batch[2:]])
    parts = [loss(batch[0, b : b + 1], batch[1, b : b + 1], [*batch[2:, b : b + 1]]) for b in range(2)]
    for key, term in whole.items():
        torch.testing.assert_close(term, (parts[0][key] + parts[1][key]) / 2)


def test_the_memory_layout_changes_nothing():
    images = random_images(4)
    terms = MNCD(Toy())(images[0], images[1], [*images[2:]])
    restored, clear, *negatives = (image.contiguous(memory_format=torch.channels_last) for image in images)
    for key, term in MNCD(Toy())(restored, clear, negatives).items():
        torch.testing.assert_close(term, terms[key])


def test_frequencies_are_float32_whatever_the_precision_around():
    restored, clear, hazy = (image.bfloat16() for image in random_images(3))
    expected = MNCD(None)(restored.float(), clear.float(), [hazy.float()])["frequency"]
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            term = MNCD(None)(restored, clear.float(), [hazy.float()])["frequency"]
        assert term.dtype == torch.float32
        assert term == expected


def test_means_of_half_precision_features_are_float32():
    class Cast(nn.Module):
        def __init__(self, dtype: torch.dtype):
            super().__init__()
            self.dtype = dtype

        def forward(self, images: Tensor) -> list[Tensor]:
            return [images.to(self.dtype)]

    # Multiples of 1/64, whose differences bfloat16 holds exactly; it does not hold their means.
    images = (random_images(4) * 64).round() / 64
    restored, clear, *negatives = images
    half, full = (MNCD(Cast(dtype))(restored, clear, negatives) for dtype in (torch.bfloat16, torch.float32))
    assert half["spatial"].item() == pytest.approx(full["spatial"].item(), rel=1e-6)


def test_without_features_there_is_the_frequency_half_alone():
    restored, clear, hazy = random_images(3)
    assert set(MNCD(None)(restored, clear, [hazy])) == {"frequency"}


def test_what_cannot_be_contrasted_is_refused():
    restored, clear, hazy = random_images(3)
    with pytest.raises(ValueError, match="give at least the hazy image"):
        MNCD(None)(restored, clear, [])
    with pytest.raises(ValueError, match="2 taps need as many weights; there are 1"):
        MNCD(Toy(), weights=(1,))(restored, clear, [hazy])
