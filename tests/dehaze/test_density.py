"""Haze density from a CLIP of random weights, against the same computed plainly."""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from dehaze import density, hub
from dehaze.density import CLEAR_PROMPTS, HAZY_PROMPTS, HazeDensity, encode_images, load_density
from dehaze.errors import WeightsError
from dehaze.haze.scattering import scatter, transmission
from dehaze.io.photo import read_photo
from dehaze.training.data import Scene, random_crop
from dehaze.training.validation import spearman
from tests.hub import HubServer, impatient

SAMPLE = Path(__file__).parents[2] / "bench" / "sample"
AIRLIGHT = torch.tensor([0.8, 0.82, 0.85]).view(3, 1, 1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Save a tiny CLIP with its tokenizer: 4×4 patches of 8 px, three layers of two heads."""
    from transformers import CLIPConfig, CLIPModel

    from dehaze.training.recipes.clip import make_tokenizer

    tokenizer, folder = make_tokenizer(), tmp_path_factory.mktemp("clip")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 8}
    vision = {**tower, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}
    text = {**tower, "num_hidden_layers": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 32}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def haze(clip) -> HazeDensity:
    return load_density(clip)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def normalised(images: Tensor) -> Tensor:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    return (images - mean) / torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def test_the_score_is_clips_own_zero_shot_answer(haze, images):
    """With one prompt in each set it is the softmax of what CLIP itself returns for image and texts."""
    tokens = haze_tokens(haze, ["a hazy photo", "a photo on a sunny day"])
    alone = HazeDensity(haze.model, tokenizer(), ["a hazy photo"], ["a photo on a sunny day"])
    logits = haze.model(pixel_values=normalised(images), **tokens).logits_per_image
    torch.testing.assert_close(alone(images).score, logits.softmax(1)[:, 0])
    embedding = haze.model.get_image_features(normalised(images)).pooler_output
    torch.testing.assert_close(encode_images(haze.model, images)[1], F.normalize(embedding, dim=1))


def tokenizer():
    from dehaze.training.recipes.clip import make_tokenizer

    return make_tokenizer()


def haze_tokens(haze: HazeDensity, texts: list[str]) -> dict[str, Tensor]:
    return dict(tokenizer()(texts, padding=True, return_tensors="pt"))


def test_patches_attend_by_their_values(haze, images):
    """Head by head and token by token, on what the last layer is given."""
    model = haze.model
    given = []
    hook = model.vision_model.encoder.layers[-1].register_forward_pre_hook(
        lambda _, args, kwargs: given.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    patches, _ = encode_images(model, images)
    hook.remove()
    last = model.vision_model.encoder.layers[-1]
    values = F.linear(
        F.layer_norm(given[0], (16,), last.layer_norm1.weight, last.layer_norm1.bias, last.layer_norm1.eps),
        last.self_attn.v_proj.weight,
        last.self_attn.v_proj.bias,
    )
    for i, row, column in product(range(2), range(4), range(4)):
        heads = []
        for head in values[i].split(8, -1):
            weights = (head @ head[1 + 4 * row + column] / 8**0.5).softmax(0)
            heads.append(weights @ head)
        place = 1 + 4 * row + column
        token = given[0][i, place] + last.self_attn.out_proj(torch.cat(heads))
        expected = model.visual_projection(model.vision_model.post_layernorm(token))
        torch.testing.assert_close(patches[i, row, column], F.normalize(expected, dim=0), atol=1e-5, rtol=1e-4)


def test_prompts_are_means_of_their_sets(haze):
    def mean(texts):
        features = haze.model.get_text_features(**haze_tokens(haze, texts)).pooler_output
        return F.normalize(F.normalize(features, dim=1).mean(0), dim=0)

    torch.testing.assert_close(haze.prompts, torch.stack([mean(HAZY_PROMPTS), mean(CLEAR_PROMPTS)]))


def test_the_map_is_the_answer_around_each_patch_brought_to_the_images_size(haze, images):
    patches, _ = encode_images(haze.model, images)
    hazy, clear = (100 * patches @ haze.prompts.T).unbind(-1)
    expected = torch.empty_like(hazy)
    for row, column in product(range(4), range(4)):
        around = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
        expected[:, row, column] = (hazy - clear)[:, *around].mean((1, 2)).sigmoid()
    haze.model.logit_scale.fill_(torch.tensor(100.0).log())
    map_ = haze.map(images)
    assert map_.shape == (2, 1, 32, 32)
    torch.testing.assert_close(map_, F.interpolate(expected[:, None], size=(32, 32), mode="bilinear"))
    assert 0 <= map_.min() < map_.max() <= 1


def test_the_embedding_has_no_direction_of_haze(haze, images):
    embedding = haze(images).embedding
    direction = haze.prompts[0] - haze.prompts[1]
    torch.testing.assert_close(embedding @ direction, torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    _, whole = encode_images(haze.model, images)
    left = whole - embedding * (whole * embedding).sum(1, keepdim=True)
    torch.testing.assert_close(
        left, (left @ direction)[:, None] * direction / (direction @ direction), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("shape", [(1, 1), (7, 90), (100, 75), (64, 64), (2, 3000)])
def test_images_of_any_size(haze, shape):
    found = haze(torch.rand(2, 3, *shape))
    assert found.density.shape == (2, 1, *shape)
    assert found.score.shape == (2,) and found.embedding.shape == (2, 8)
    assert all(value.isfinite().all() for value in found)


def test_images_of_a_batch_do_not_mix(haze):
    images = torch.rand(3, 3, 40, 56)
    together, alone = haze(images), [haze(image[None]) for image in images]
    for i, value in enumerate(together):
        torch.testing.assert_close(value, torch.cat([found[i] for found in alone]), atol=1e-5, rtol=1e-4)


def test_gradients_only_where_they_are_asked_for(haze, images):
    assert not any(value.requires_grad for value in haze(images))
    images.requires_grad_()
    found = haze(images)
    (found.density.sum() + found.score.sum() + found.embedding.sum()).backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in haze.parameters())


def test_texts_are_encoded_once(haze, images, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("texts were encoded again")

    monkeypatch.setattr(density, "encode_texts", fail)
    assert torch.equal(haze.map(images), haze.map(images))


def test_rounding_around_it_does_not_show(haze, images):
    exact = haze(images)
    with torch.autocast("cpu", torch.bfloat16):
        for value, expected in zip(haze(images), exact, strict=True):
            assert torch.equal(value, expected)


def test_the_layout_of_openais_model():
    """Its true configuration, without its weights: shapes alone are computed."""
    from transformers import CLIPConfig, CLIPModel

    vision = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16}
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(vision_config=vision, projection_dim=512))
    assert sum(parameter.numel() for parameter in model.parameters()) == 149_620_737
    images = torch.zeros(2, 3, 600, 800, device="meta")
    patches, whole = encode_images(model, images)
    assert patches.shape == (2, 12, 16, 512)  # 192 of 196 patches
    assert whole.shape == (2, 512)


class TestLoading:
    def test_from_the_hub_by_id(self, clip, images, tmp_path, monkeypatch):
        with HubServer() as server:
            server.connect(monkeypatch, tmp_path)
            commit = server.put_folder("model", "org/clip", clip)
            server.put("model", "org/clip", {"pytorch_model.bin": b"a pickle"})
            for name in ("org/clip", f"org/clip@{commit}"):
                assert torch.equal(load_density(name).map(images), load_density(clip).map(images))
            assert not any("pytorch_model.bin" in request for request in server.requests if request.startswith("GET"))

    def test_without_a_connection_the_message_says_what_to_do(self, tmp_path, monkeypatch):
        impatient(monkeypatch)
        with HubServer() as server:
            server.connect(monkeypatch, tmp_path)
        with pytest.raises(WeightsError, match=r"openai/clip-vit-base-patch16 .*Check the connection") as caught:
            load_density("openai/clip-vit-base-patch16")
        assert "\n" not in str(caught.value)

    def test_where_none_ships_the_message_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setattr(hub, "SHIPPED", tmp_path)
        with pytest.raises(WeightsError, match="Give a folder or a Hub id"):
            load_density()

    def test_no_other_file_is_read(self, clip, images, tmp_path, monkeypatch):
        """Neither pickles, nor shards elsewhere, nor adapters, nor code; and of the tokenizer its vocabulary alone."""
        folder = shutil.copytree(clip, tmp_path / "clip")
        config, tokenizer = (json.loads((clip / name).read_text()) for name in ("config.json", "tokenizer.json"))
        more = {"auto_map": {"AutoModel": "code.Evil"}, "attn_implementation": "org/kernel", "quantization_config": {}}
        steps = {"padding": {"strategy": {"Fixed": 10**9}}, "normalizer": {"type": "Replace"}, "pre_tokenizer": None}
        (folder / "config.json").write_text(json.dumps(config | more))
        tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]  # as they once were
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer | steps))
        for name in ("adapter_config.json", "model.safetensors.index.json", "tokenizer_config.json"):
            (folder / name).write_text('{"base_model_name_or_path": "org/other", "weight_map": {"a": "../a"}}')
        (folder / "pytorch_model.bin").write_bytes(b"a pickle")
        assert torch.equal(load_density(folder).map(images), load_density(clip).map(images))

    def test_older_files_with_the_numbers_of_positions_load(self, clip, images, tmp_path):
        folder = shutil.copytree(clip, tmp_path / "clip")
        tensors = load_file(clip / "model.safetensors")
        tensors["text_model.embeddings.position_ids"] = torch.arange(32)[None]
        save_file(tensors, folder / "model.safetensors")
        assert torch.equal(load_density(folder).map(images), load_density(clip).map(images))

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"text_projection.weight": None}, "lacks text_projection.weight"),
            ({"stranger": torch.zeros(1)}, "has the unknown stranger"),
            ({"logit_scale": torch.zeros(3)}, "has another shape for logit_scale"),
            ({"logit_scale": torch.tensor(3)}, "has another data type for logit_scale"),
        ],
    )
    def test_weights_that_do_not_fit_are_refused(self, clip, tmp_path, changed, message):
        folder = shutil.copytree(clip, tmp_path / "clip")
        tensors = load_file(clip / "model.safetensors") | changed
        save_file({key: value for key, value in tensors.items() if value is not None}, folder / "model.safetensors")
        with pytest.raises(WeightsError, match=message):
            load_density(folder)

    @pytest.mark.parametrize(
        ("tower", "entry", "value", "message"),
        [
            ("text_config", "vocab_size", 10**9, "text_config.vocab_size: input should be less"),
            ("text_config", "hidden_size", "16", "text_config.hidden_size: input should be a valid integer"),
            ("text_config", "num_attention_heads", 3, "not a multiple of the number of attention heads"),
            ("text_config", "max_position_embeddings", 2048, "has another shape for text_model"),
            ("vision_config", "num_hidden_layers", 10**7, "vision_config.num_hidden_layers: input should be less"),
            ("vision_config", "num_hidden_layers", 64, "lacks vision_model"),
            ("vision_config", "patch_size", 0, "vision_config.patch_size: input should be greater"),
            ("vision_config", "patch_size", 64, "patches of 64 px do not fit into images of 32 px"),
            ("vision_config", "hidden_act", "evil\n", "vision_config.hidden_act: input should be 'quick_gelu'"),
            ("vision_config", "layer_norm_eps", float("nan"), "vision_config.layer_norm_eps"),
        ],
    )
    def test_absurd_configurations_are_refused(self, clip, tmp_path, tower, entry, value, message):
        folder = shutil.copytree(clip, tmp_path / "clip")
        config = json.loads((clip / "config.json").read_text())
        config[tower][entry] = value
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(WeightsError, match=message) as caught:
            load_density(folder)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("model.safetensors", None, "model.safetensors does not exist"),
            ("model.safetensors", b"nonsense", "cannot be read"),
            ("config.json", b"{", "cannot be read"),
            ("config.json", b'{"text_config": null}', "text_config: input should be"),
            ("tokenizer.json", None, "tokenizer.json does not exist"),
            ("tokenizer.json", b"{}", "model: field required"),
            ("tokenizer.json", b'{"model": {"vocab": {"a": "b"}, "merges": []}}', "vocab.a: input should be"),
            (
                "tokenizer.json",
                b'{"model": {"vocab": {"a": 0}, "merges": ["b c"]}}',
                "holds no CLIP model that can be loaded",
            ),
            (
                "tokenizer.json",
                b'{"model": {"vocab": {"a": 0}, "merges": ["bc"]}}',
                "holds no CLIP model that can be loaded",
            ),
        ],
    )
    def test_damaged_files_are_refused(self, clip, tmp_path, name, content, message):
        folder = shutil.copytree(clip, tmp_path / "clip")
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message) as caught:
            load_density(folder)
        assert str(caught.value).isprintable()

    def test_a_tokenizer_of_more_words_is_refused(self, clip, tmp_path):
        folder = shutil.copytree(clip, tmp_path / "clip")
        tokenizer = json.loads((clip / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"]["another"] = len(tokenizer["model"]["vocab"])
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(WeightsError, match=r"tokenizer\.json is of another model: it knows more words"):
            load_density(folder)

    def test_what_is_nowhere_is_refused(self, tmp_path):
        with pytest.raises(WeightsError, match="is neither a folder of a CLIP model nor a Hub id"):
            load_density(tmp_path / "nowhere")


class TestShipped:
    """The CLIP model that ships, on the scenes of the sample set: none of them was trained on."""

    @pytest.fixture(scope="class")
    def haze(self) -> HazeDensity:
        return load_density()

    @pytest.fixture(scope="class")
    def scenes(self) -> list[tuple[Tensor, Tensor]]:
        """Return clear scenes [3,256,256] in [0,1] with their depth [256,256], 1 being far."""
        scenes = [
            Scene(photo, SAMPLE / "depth" / f"{photo.stem}.png") for photo in sorted((SAMPLE / "clear").iterdir())
        ]
        return [random_crop(scene, 256, torch.Generator().manual_seed(0)) for scene in scenes]

    def test_it_is_small(self, haze):
        assert sum(parameter.numel() for parameter in haze.model.parameters()) <= 8_000_000
        assert sum(file.stat().st_size for file in hub.shipped_folder("clip").iterdir()) <= 20e6

    @pytest.mark.slow
    def test_denser_haze_of_a_scene_scores_higher(self, haze, scenes):
        betas = torch.linspace(0, 3, 7)
        for clear, depth in scenes:
            graded = [scatter(clear, transmission(beta * (0.2 + 0.8 * depth[None])), AIRLIGHT) for beta in betas]
            scores = haze(torch.stack(graded)).score
            assert spearman(scores[None], betas[None]) >= 0.95

    def test_the_map_shows_where_haze_lies(self, haze, scenes):
        """From a clear corner to a hazy one, over any scene."""
        fog = torch.linspace(0, 2, 256) + torch.linspace(0, 0.7, 256)[None, :, None]
        hazy = torch.stack([scatter(clear, transmission(fog), AIRLIGHT) for clear, _ in scenes])
        density = F.avg_pool2d(haze.map(hazy), 16)
        truth = F.avg_pool2d((1 - transmission(fog))[None], 16).expand_as(density)
        assert spearman(density, truth).mean() >= 0.6

    def test_real_haze_scores_above_clear_scenes(self, haze, scenes):
        clear = haze(torch.stack([scene for scene, _ in scenes])).score
        real = torch.cat([haze(read_photo(photo).tensor()).score for photo in sorted((SAMPLE / "real").iterdir())])
        assert (real[:, None] > clear).double().mean() >= 0.95
