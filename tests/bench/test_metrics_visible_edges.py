"""Visible edges: on images whose edges are known, and against the definition written out in loops."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from bench import metrics
from bench.metrics import MetricError, visible_edges
from bench.metrics.visible_edges import gradient_ratio, new_edges, newly_saturated


def step(low, high, height=24, width=32, at=13):
    """Two plain halves: columns before `at` are `low`, the others `high`."""
    levels = np.full((height, width), float(low))
    levels[:, at:] = high
    return levels


def texture(seed, height=23, width=30):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 1.5)
    return np.clip(np.round(128 + 250 * smooth), 0, 255)


def tensor(levels):
    return torch.from_numpy(levels / 255).float().expand(1, 3, -1, -1)


def by_definition(levels, side=7):
    height, width = levels.shape
    padded = np.pad(levels, (0, side), mode="symmetric")
    visible = np.zeros(padded.shape, dtype=bool)
    for top in range(0, height, 4):
        for left in range(0, width, 4):
            window, best, edge = padded[top : top + side, left : left + side], 0.0, None
            for s in range(max(int(window.min()), 1), int(window.max()) + 1):
                parted, contrasts = np.zeros((side, side), dtype=bool), []
                for here in np.ndindex(side - 1, side - 1):
                    here = (here[0] + 1, here[1] + 1)
                    for beside in ((here[0], here[1] - 1), (here[0] - 1, here[1])):
                        x, y = sorted((window[here], window[beside]))
                        if x <= s < y:
                            contrasts.append(min((s - x) / max(s, x), (y - s) / max(s, y)))
                            parted[here] = parted[beside] = True
                if contrasts and np.mean(contrasts) > best + 1e-12:
                    best, edge = np.mean(contrasts), parted
            if best > 0.025:
                visible[top : top + side, left : left + side] |= edge
    return visible[:height, :width]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_is_the_definition(seed):
    levels = texture(seed) if seed < 3 else np.random.default_rng(3).integers(0, 256, (11, 14)).astype(float)
    found = visible_edges.visible_edges(levels)
    np.testing.assert_array_equal(found, by_definition(levels))
    assert 0.1 < found.mean() < 0.9


def test_windows_taken_in_parts_are_the_same(monkeypatch):
    whole = visible_edges.visible_edges(texture(5))
    monkeypatch.setattr(visible_edges, "CHUNK", 3)
    np.testing.assert_array_equal(visible_edges.visible_edges(texture(5)), whole)


@pytest.mark.parametrize(
    ("low", "high", "seen"),
    [  # the best threshold is near the geometric mean: its contrast is 1 - sqrt(low / high), half of 5 % the limit
        (100, 200, True),
        (200, 100, True),
        (100, 106, True),  # s = 103: min(3 / 103, 3 / 106) = 2.83 %
        (100, 104, False),  # s = 102: min(2 / 102, 2 / 104) = 1.92 %
        (20, 22, True),  # s = 21: min(1 / 21, 1 / 22) = 4.5 %
        (200, 208, False),
        (0, 1, False),  # no whole threshold lies between: s = 1 does not part them, and 0 has no contrast
        (0, 2, True),
        (90, 90, False),
    ],
)
def test_a_step_is_seen_from_5_percent_on_and_is_two_pixels_wide(low, high, seen):
    expected = np.zeros((24, 32), dtype=bool)
    expected[1:, 12:14] = seen  # the first row is paired with nothing, as in the authors' code
    np.testing.assert_array_equal(visible_edges.visible_edges(step(low, high)), expected)
    np.testing.assert_array_equal(visible_edges.visible_edges(step(low, high).T), expected.T)


def test_e_is_the_rate_of_new_edges():
    hazy = step(100, 200)
    restored = hazy.copy()
    restored[:, :6] = 40  # a second edge, between columns 5 and 6
    assert new_edges(restored, hazy) == 1
    assert new_edges(hazy, restored) == -0.5
    assert new_edges(hazy, hazy) == 0
    assert new_edges(hazy, step(100, 102)) == math.inf
    assert math.isnan(new_edges(step(9, 9), step(9, 9)))


def test_r_is_the_growth_of_gradients_where_edges_are_visible():
    assert gradient_ratio(step(50, 200), step(100, 150)) == pytest.approx(3)
    assert gradient_ratio(step(100, 110), step(100, 140)) == pytest.approx(1 / 4)
    after, before = (np.hstack([step(*levels), step(90, 130)]) for levels in ((50, 200), (100, 150)))
    after[:, 32:45], before[:, 32:45] = 200, 150  # no edge where the two halves meet
    after[:, 45:], before[:, 45:] = 100, 50  # this second edge has not changed
    assert gradient_ratio(after, before) == pytest.approx(math.sqrt(3))
    # Without a gradient in the hazy image a pixel counts as unchanged.
    assert gradient_ratio(step(50, 200), step(100, 100)) == 1
    assert math.isnan(gradient_ratio(step(9, 9), step(50, 200)))


def test_sigma_is_the_share_that_becomes_black_or_white():
    hazy = np.full((10, 10), 128.0)
    hazy[0] = 255
    restored = hazy.copy()
    restored[:3] = 0  # ten were white before
    restored[9, :5] = 255
    assert newly_saturated(restored, hazy) == pytest.approx(0.25)


def test_metrics_round_to_grey_and_take_batches():
    hazy, restored = texture(1), np.clip(np.round(2 * (texture(1) - 128) + 128), 0, 255)
    one, other = (torch.cat([tensor(a), tensor(b)]) for a, b in ((restored, hazy), (hazy, restored)))
    for name, descriptor in (("e", new_edges), ("r", gradient_ratio), ("sigma", newly_saturated)):
        scores = metrics.get(f"visible_edges_{name}")(one, hazy=other).tolist()
        assert scores == [pytest.approx(descriptor(restored, hazy)), pytest.approx(descriptor(hazy, restored))]
    assert metrics.get("visible_edges_e")(one, hazy=other)[0] > 0
    assert metrics.get("visible_edges_r")(one, hazy=other)[0] > 1.3


def test_grey_is_that_of_matlab():
    colour = torch.tensor([255.0, 128, 10])[:, None, None].expand(3, 24, 32) / 255
    hazy = tensor(step(153, 153))  # 0.2989·255 + 0.5870·128 + 0.1140·10 = 152.5
    restored = colour[None].clone()
    restored[..., 13:] = 1
    assert metrics.get("visible_edges_sigma")(restored, hazy=hazy).item() == pytest.approx(19 / 32)


def test_the_hazy_image_is_needed():
    restored = tensor(step(100, 200))
    with pytest.raises(MetricError, match="visible_edges_e compares with a hazy image and none was given"):
        metrics.get("visible_edges_e")(restored, restored)
    with pytest.raises(MetricError, match="the hazy one 1 of 31×24"):
        metrics.get("visible_edges_r")(restored, hazy=restored[..., 1:])
    with pytest.raises(MetricError, match="undefined"):
        metrics.get("visible_edges_r")(tensor(step(9, 9)), hazy=restored)
