import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dehaze.errors import WeightsError
from dehaze.training.losses.features import get_features

# Position of the tapped activations in torchvision's `features`, counted by hand.
POSITIONS = {"vgg16": (3, 8, 15, 22), "vgg19": (1, 6, 11, 20, 29)}


def torchvision_layers(name: str) -> torch.nn.Sequential:
    vgg = pytest.importorskip("torchvision.models.vgg")
    with torch.device("meta"):
        return vgg.make_layers(vgg.cfgs[{"vgg16": "D", "vgg19": "E"}[name]], batch_norm=False)


def random_vgg(name: str) -> dict[str, Tensor]:
    """Draw half-precision weights for torchvision's layers up to the last tap."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for key, value in torchvision_layers(name)[: POSITIONS[name][-1] + 1].state_dict(prefix="features.").items():
        scale = math.sqrt(2 / value[0].numel()) if value.ndim == 4 else 0.1
        tensors[key] = (torch.randn(value.shape, generator=generator) * scale).half()
    return tensors


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("vgg")
    paths = {name: folder / f"{name}.safetensors" for name in POSITIONS}
    for name, path in paths.items():
        save_file(random_vgg(name), path)
    return paths


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Save a tiny CLIP, both towers, with random weights."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 8}
    vision = {**tower, "num_hidden_layers": 8, "image_size": 32, "patch_size": 8}
    text = {**tower, "num_hidden_layers": 1, "vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    return folder


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))


class TestVGG:
    @pytest.mark.parametrize("name", POSITIONS)
    def test_taps_are_torchvisions_activations(self, name, files, images):
        layers = torchvision_layers(name)[: POSITIONS[name][-1] + 1]
        tensors = {key.removeprefix("features."): value.double() for key, value in load_file(files[name]).items()}
        layers.load_state_dict(tensors, assign=True)
        mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        x, expected = (images.double() - mean) / std, []
        for position, layer in enumerate(layers):
            x = layer(x)
            if position in POSITIONS[name]:
                expected.append(x.clone())  # the layers work in place
        taps = get_features(name, files[name])(images)
        assert len(taps) == len(expected)
        for tap, reference in zip(taps, expected, strict=True):
            torch.testing.assert_close(tap.double(), reference, atol=1e-4, rtol=1e-4)

    def test_ending_earlier_gives_the_same_taps_with_fewer_weights(self, files, images):
        whole, short = get_features("vgg16", files["vgg16"]), get_features("vgg16", files["vgg16"], last="relu3_3")
        assert short.taps == ("relu1_2", "relu2_2", "relu3_3")
        for a, b in zip(whole(images)[:3], short(images), strict=True):
            assert torch.equal(a, b)
        # The convolutions up to relu3_3: 3·64 + 64·64 + 64·128 + 128·128 + 128·256 + 2·256·256 kernels; 1152 biases.
        assert sum(p.numel() for p in short.parameters()) == 9 * 192_704 + 1152

    def test_gradients_reach_the_images_alone(self, files, images):
        features = get_features("vgg16", files["vgg16"])
        images.requires_grad_()
        sum(tap.sum() for tap in features(images)).backward()
        assert images.grad.abs().mean() > 0
        assert all(p.grad is None and not p.requires_grad for p in features.parameters())

    def test_it_stays_in_eval_mode(self, files):
        features = get_features("vgg16", files["vgg16"])
        outer = torch.nn.Sequential(features).train()
        assert outer.training
        assert not any(module.training for module in features.modules())

    def test_loading_draws_no_random_numbers(self, files):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        get_features("vgg16", files["vgg16"])
        assert torch.equal(torch.rand(3), expected)

    def test_what_torchvision_has_behind_the_last_tap_may_be_there(self, files, images, tmp_path):
        more = {"features.24.weight": torch.zeros(512, 512, 3, 3), "classifier.6.bias": torch.zeros(1000)}
        save_file(load_file(files["vgg16"]) | more, tmp_path / "all.safetensors")
        taps = get_features("vgg16", tmp_path / "all.safetensors")(images)
        expected = get_features("vgg16", files["vgg16"])(images)
        assert all(torch.equal(a, b) for a, b in zip(taps, expected, strict=True))

    def test_weights_of_another_network_are_refused(self, files, tmp_path):
        tensors, path = load_file(files["vgg16"]), tmp_path / "other.safetensors"
        for changed, message in [
            ({**tensors, "stranger": torch.zeros(1)}, "1 tensors .* stranger"),
            ({key: value for key, value in tensors.items() if key != "features.21.bias"}, r"features\.21\.bias"),
            ({**tensors, "features.0.bias": torch.zeros(5)}, r"features\.0\.bias"),
            ({key.removeprefix("features."): value for key, value in tensors.items()}, "40 tensors"),
        ]:
            save_file(changed, path)
            with pytest.raises(WeightsError, match=message):
                get_features("vgg16", path)
        # The two share the names and shapes of all layers up to relu3_1.
        with pytest.raises(WeightsError, match="does not fit vgg16"):
            get_features("vgg16", files["vgg19"], last="relu1_2")

    def test_what_is_no_safetensors_file_is_refused(self, files, tmp_path):
        torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
        (tmp_path / "cut.safetensors").write_bytes(files["vgg16"].read_bytes()[:1000])
        for name in ("vgg16.pth", "cut.safetensors", "nowhere.safetensors"):
            with pytest.raises(WeightsError, match="cannot be read as safetensors"):
                get_features("vgg16", tmp_path / name)

    def test_without_a_file_torchvision_is_asked_for_tensors_only(self, files, images, monkeypatch):
        api = pytest.importorskip("torchvision.models._api")
        asked = {}

        def download(url: str, **options) -> dict[str, Tensor]:
            asked.update(options, url=url)
            return load_file(files["vgg19"]) | {"classifier.0.bias": torch.zeros(4096)}

        monkeypatch.setattr(api, "load_state_dict_from_url", download)
        taps = get_features("vgg19")(images)
        expected = get_features("vgg19", files["vgg19"])(images)
        assert all(torch.equal(a, b) for a, b in zip(taps, expected, strict=True))
        assert "vgg19" in asked["url"]
        assert asked["weights_only"]
        assert asked["check_hash"]

        def fail(url: str, **options):
            raise OSError("no route")

        monkeypatch.setattr(api, "load_state_dict_from_url", fail)
        with pytest.raises(WeightsError, match=r"no route.*Give a safetensors file"):
            get_features("vgg19")
        monkeypatch.setitem(sys.modules, "torchvision.models", None)
        with pytest.raises(WeightsError, match="Give a safetensors file"):
            get_features("vgg19")


class TestCLIP:
    def test_taps_are_the_patch_tokens_of_the_hidden_states(self, clip):
        from transformers import CLIPModel

        features = get_features("clip", clip)
        assert features.taps == ("layer2", "layer4", "layer6", "layer8")
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        model = CLIPModel.from_pretrained(clip).vision_model.eval()
        mean, std = (
            torch.tensor(v).view(3, 1, 1)
            for v in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
        )
        states = model((images - mean) / std, output_hidden_states=True).hidden_states
        for tap, layer in zip(features(images), (2, 4, 6, 8), strict=True):
            assert tap.shape == (2, 16, 4, 4)
            for row in range(4):
                for column in range(4):
                    token = states[layer][:, 1 + 4 * row + column]
                    torch.testing.assert_close(tap[:, :, row, column], token, atol=1e-5, rtol=1e-5)

    def test_images_of_other_sizes_and_an_earlier_end(self, clip):
        features = get_features("clip", str(clip), last="layer4")
        assert [tap.shape for tap in features(torch.rand(1, 3, 50, 35))] == [(1, 16, 6, 4)] * 2
        whole = get_features("clip", clip)
        image = torch.rand(1, 3, 40, 48)
        for a, b in zip(features(image), whole(image)[:2], strict=True):
            torch.testing.assert_close(a, b)
        assert sum(p.numel() for p in features.parameters()) < sum(p.numel() for p in whole.parameters())

    def test_gradients_reach_the_images_alone(self, clip):
        features = get_features("clip", clip)
        images = torch.rand(1, 3, 32, 32).requires_grad_()
        sum(tap.square().sum() for tap in features(images)).backward()
        assert images.grad.abs().mean() > 0
        assert all(p.grad is None and not p.requires_grad for p in features.parameters())

    def test_what_is_no_clip_model_is_refused(self, clip, tmp_path):
        with pytest.raises(WeightsError, match="Give a Hub id or a folder"):
            get_features("clip", tmp_path / "nowhere")
        (tmp_path / "config.json").write_bytes((clip / "config.json").read_bytes())
        with pytest.raises(WeightsError, match="Give a Hub id or a folder"):
            get_features("clip", tmp_path)
        torch.save(load_file(clip / "model.safetensors"), tmp_path / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="Give a Hub id or a folder"):
            get_features("clip", tmp_path)
        tensors = load_file(clip / "model.safetensors")
        save_file({k: v for k, v in tensors.items() if "vision_model.encoder" not in k}, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match="holds no CLIP image encoder"):
            get_features("clip", tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
        with pytest.raises(WeightsError, match="Give a Hub id or a folder"):
            get_features("clip", tmp_path)


def test_unknown_names_and_taps_list_the_known(files, clip):
    with pytest.raises(ValueError, match="known: vgg16, vgg19, clip"):
        get_features("resnet")
    with pytest.raises(ValueError, match="known: relu1_2, relu2_2, relu3_3, relu4_3"):
        get_features("vgg16", files["vgg16"], last="relu3_1")
    with pytest.raises(ValueError, match="known: layer2, layer4, layer6, layer8"):
        get_features("clip", clip, last="layer3")


@pytest.mark.slow
def test_importing_needs_neither_torchvision_nor_transformers():
    code = "import sys, dehaze.training.losses.mncd; sys.exit(bool({'torchvision', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4]).returncode == 0
