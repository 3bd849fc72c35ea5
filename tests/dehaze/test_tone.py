"""The tone head: the limits of its curve, how the curve is applied, and what the shipped weights do."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import bench
from dehaze import list_models
from dehaze.adjust import Adjustments, find_change, finish
from dehaze.errors import WeightsError
from dehaze.hub import Weights, build_network, save_weights, shipped
from dehaze.tone import ToneConfig, ToneHead, apply_curve, curve_gain, load_tone_head, toned

SAMPLE = Path(bench.__file__).parent / "sample"
LIGHT = torch.linspace(0, 1, 17)  # inputs of the curve, and the identity


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(seed))


def random_head(seed: int, config: ToneConfig | None = None) -> ToneHead:
    """A head whose weights are large enough that every limit is met."""
    head = ToneHead(config)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=2.0, generator=seeded(seed))
    return head.eval()


def gamma(exponent: float) -> torch.Tensor:
    return (LIGHT**exponent)[None]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * (a - b).square().mean().log10().item()


@pytest.fixture(scope="module")
def shipped_head() -> ToneHead:
    return load_tone_head()


@pytest.fixture(scope="module", params=sorted(path.stem for path in (SAMPLE / "clear").iterdir()))
def scene(request) -> tuple[torch.Tensor, torch.Tensor]:
    """A clear photograph [1,3,120,160], and the density [1,1,120,160] of a fog that is half opaque in the mean."""
    with (
        Image.open(SAMPLE / "clear" / f"{request.param}.jpg") as photo,
        Image.open(SAMPLE / "depth" / f"{request.param}.png") as depth,
    ):
        clear = torch.from_numpy(np.array(photo.convert("RGB").resize((160, 120), Image.Resampling.BOX)))
        far = 1 - torch.from_numpy(np.array(depth.convert("L").resize((160, 120), Image.Resampling.BOX))) / 255
    return clear.permute(2, 0, 1)[None] / 255, (0.2 + 0.6 * far / far.mean() * 0.5).clamp(0, 0.95)[None, None]


class TestCurve:
    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("known", [True, False])
    def test_it_rises_from_0_to_1_within_the_limits_whatever_the_weights(self, seed, known):
        limits = ToneConfig(max_slope=1.5 + 0.2 * seed, max_darkening=0.02 * (seed % 3))
        hazy, restored, density = images(4), images(4, seed=1), images(4, seed=2)[:, :1]
        curves = random_head(seed, limits)(hazy, restored, density if known else None)
        assert curves.shape == (4, 17)
        assert (curves[:, 0] == 0).all() and (curves[:, -1] == 1).all()
        slopes = 16 * curves.diff(dim=1)
        assert slopes.min() > 0.35 / (limits.max_slope / 2.2) ** 2
        assert slopes.max() <= limits.max_slope + 1e-5
        assert (LIGHT - curves).max() <= limits.max_darkening + 1e-6

    def test_the_limits_are_met(self):
        """They bind where the network asks for much, in each direction."""
        head = ToneHead()
        for weights in (1e6 * torch.eye(4), -1e6 * torch.eye(4)):
            slopes = 16 * head.curve_of(weights, torch.ones(4)).diff(dim=1)
            assert slopes.min() >= 0.35 and slopes.max() <= 2.2 + 1e-5
        up, down = head.curve_of(torch.tensor([[1e6, 0, 0, 0], [-1e6, 0, 0, 0]]), torch.ones(2))
        assert up[1] / LIGHT[1] > 1.8 and up[8] > 0.65
        assert (LIGHT - down).max() == pytest.approx(0.04, abs=1e-6)

    def test_an_untrained_head_changes_nothing(self):
        assert torch.equal(ToneHead()(images(2), images(2, seed=1), None), LIGHT.expand(2, 17))

    def test_what_was_not_restored_keeps_its_exposure(self):
        hazy = images(2)
        head = random_head(0)
        assert torch.equal(head(hazy, hazy, None), LIGHT.expand(2, 17))
        slightly = (head(hazy, hazy + 0.001, None) - LIGHT).abs().max()
        assert 0 < slightly < 0.1 * (head(hazy, hazy / 2, None) - LIGHT).abs().max()

    def test_the_size_of_the_copy_matters_little(self, scene):
        clear, density = scene
        hazy, head = clear + density * (0.9 - clear), load_tone_head()
        half = [F.interpolate(image, scale_factor=0.5, mode="area") for image in (hazy, clear**1.5, density)]
        torch.testing.assert_close(head(*half), head(hazy, clear**1.5, density), atol=0.01, rtol=0)

    def test_its_size(self):
        assert sum(parameter.numel() for parameter in ToneHead().parameters()) < 8000

    def test_no_configuration_asks_for_just_any_number(self, tmp_path):
        config = json.loads(json.dumps(asdict(ToneConfig())))
        for key, value in config.items():
            for wrong in (10**9, -1, str(value)):
                asked = config | {key: [wrong] * 3 if isinstance(value, list) else wrong}
                with pytest.raises(WeightsError, match="not of the model 'tone'"):
                    build_network("tone", ToneHead, Weights(tmp_path / "none", "", asked, {}))


class TestApply:
    def test_agrees_with_interpolation_by_numpy(self):
        image, curve = images(2, seed=3), torch.stack([gamma(0.6)[0], gamma(1.3)[0]])
        gains = curve_gain(image.amax(1, keepdim=True), curve)
        for i in range(2):
            brightest = image[i].amax(0).double().numpy()
            expected = np.interp(brightest, LIGHT.numpy(), curve[i].double().numpy()) / brightest
            np.testing.assert_allclose(gains[i, 0], expected, rtol=2e-5)

    def test_black_and_white_stay(self):
        ends = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2).clone()
        assert torch.equal(apply_curve(ends.clone(), gamma(0.5)), ends)

    def test_the_identity_changes_no_bit(self):
        image = images(1, 70, 30)
        assert torch.equal(apply_curve(image.clone(), LIGHT[None]), image)

    def test_colours_keep_their_ratios_and_no_channel_exceeds_1(self):
        image = images(1, 90, 110)
        image[:, 0, :40] = 1  # saturated red
        result = apply_curve(image.clone(), gamma(0.5))
        assert result.max() <= 1
        assert (result >= image - 1e-6).all()
        torch.testing.assert_close(result * image.sum(1, keepdim=True), image * result.sum(1, keepdim=True))

    def test_strips_of_a_batch_equal_the_whole(self):
        image = images(3, 150, 20)
        curve = torch.stack([gamma(exponent)[0] for exponent in (0.6, 1.0, 1.4)])
        expected = toned(image, curve)
        result = apply_curve(image, curve)
        assert result is image
        torch.testing.assert_close(result, expected.clamp(max=1), rtol=1e-6, atol=1e-7)

    def test_the_amount_goes_from_nothing_to_all(self):
        image, curve = images(1), gamma(0.6)
        assert torch.equal(apply_curve(image.clone(), curve, 0.0), image)
        whole = apply_curve(image.clone(), curve, 1.0)
        assert torch.equal(whole, apply_curve(image.clone(), curve))
        half = apply_curve(image.clone(), curve, 0.5)
        torch.testing.assert_close(half, (image + whole) / 2)

    @pytest.mark.parametrize("inference", [True, False])
    def test_takes_what_a_dehazer_returns_and_any_other_tensor(self, inference):
        with torch.inference_mode(inference):
            image = images(1) + 0
        assert torch.equal(apply_curve(image, gamma(0.6)), apply_curve(images(1), gamma(0.6)))

    def test_curves_get_gradients(self):
        curve = gamma(0.8).requires_grad_()
        toned(images(1), curve).sum().backward()
        assert curve.grad is not None and curve.grad.isfinite().all() and curve.grad[0, 1:].min() > 0


class TestShipped:
    """The weights that ship do what their card says."""

    def test_are_no_dehazing_model(self):
        assert shipped("tone")
        assert "tone" not in list_models()

    def test_are_loaded_once(self, shipped_head):
        assert load_tone_head() is shipped_head
        assert not shipped_head.training

    def test_a_dark_restoration_becomes_brighter_and_nearer_to_the_truth(self, scene, shipped_head):
        clear, density = scene
        dark = clear**1.6
        hazy = dark + density * (0.85 - dark)
        result = toned(dark, shipped_head(hazy, dark, density))
        assert result.mean() > dark.mean() + 0.02
        assert psnr(result, clear) > psnr(dark, clear) + 1

    def test_a_clear_photograph_is_hardly_changed(self, scene, shipped_head):
        """As a network restores it that takes some haze out where there is none."""
        clear, density = scene
        restored = (clear - 0.01 * (1 - clear)).clamp(0, 1)
        assert psnr(toned(restored, shipped_head(clear, restored, torch.zeros_like(density))), restored) >= 35

    def test_the_adjustment_brightness_is_the_curve(self, scene, shipped_head):
        clear, density = scene
        dark = clear**1.6
        hazy = dark + density * (0.85 - dark)
        curve = find_change(hazy, dark, density, Adjustments(brightness=1)).curve
        assert curve is not None
        torch.testing.assert_close(curve, shipped_head(hazy, dark, density))
        torch.testing.assert_close(finish(dark.clone(), curve), toned(dark, curve))
        half = find_change(hazy, dark, density, Adjustments(brightness=0.5)).curve
        torch.testing.assert_close(half, (curve + LIGHT) / 2)


class TestLoading:
    def test_a_folder_round_trip(self, tmp_path):
        head = random_head(0, replace(ToneConfig(), shapes=3, knots=9))
        save_weights(head, tmp_path)
        loaded = load_tone_head(tmp_path)
        assert loaded.config == head.config
        seen = images(2), images(2, seed=1), None
        assert torch.equal(loaded(*seen), head(*seen))

    def test_a_truncated_file_is_refused(self, tmp_path):
        save_weights(ToneHead(), tmp_path)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(WeightsError, match="cannot be read"):
            load_tone_head(tmp_path)

    def test_weights_of_another_size_are_refused(self, tmp_path):
        save_weights(ToneHead(), tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"shapes": 5}))
        with pytest.raises(WeightsError, match="does not fit the model 'tone'"):
            load_tone_head(tmp_path)
