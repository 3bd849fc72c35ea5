from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dehaze
from dehaze.cost import multiply_adds
from dehaze.density import instruct, load_clip, load_density
from dehaze.errors import WeightsError
from dehaze.networks.cliphaze import BASE_CONFIG, Aggregation, CLIPHaze, CLIPHazeBase, CLIPHazeConfig, SkipFusion
from dehaze.networks.draco import DRACO

TINY = CLIPHazeConfig(widths=(24, 24, 24), blocks=(1, 2, 1, 1, 1))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def awake(config: CLIPHazeConfig = TINY) -> CLIPHaze:
    """Make a network in which nothing starts at 0."""
    torch.manual_seed(0)
    network = CLIPHaze(config).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def hazy() -> torch.Tensor:
    return torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def told(hazy) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(2)
    embedding = F.normalize(torch.randn(2, 128, generator=draws), dim=1)
    return {"density": torch.rand(2, 1, 64, 128, generator=draws), "embedding": embedding}


@pytest.mark.slow
def test_size():
    network, hazy = CLIPHaze().eval(), torch.zeros(1, 3, 256, 256)
    assert parameters(network) <= 1_500_000
    told = {"density": torch.zeros(1, 1, 256, 256), "embedding": torch.zeros(1, 128)}
    assert multiply_adds(lambda x: network(x, **told), hazy) <= 8e9
    with torch.device("meta"):
        assert CLIPHazeBase().config == BASE_CONFIG
        assert 4 * parameters(CLIPHaze()) < parameters(CLIPHazeBase()) < 12 * parameters(CLIPHaze())


def test_untrained_returns_its_input(hazy, told):
    torch.testing.assert_close(CLIPHaze(TINY)(hazy, **told), hazy)


@pytest.mark.parametrize("mix", ["local", "global", "sum", "density", "full"])
def test_every_parameter_learns(mix, hazy, told):
    network = awake(replace(TINY, mix=mix))
    network.restore_unclipped(hazy, **told).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_each_mix_takes_what_it_says(hazy, told):
    """Changed density and embedding change the result where the mix takes them, and nowhere else."""
    changed = {"density": 1 - told["density"], "embedding": -told["embedding"]}
    for mix, taken in {"local": "", "global": "", "sum": "", "density": "density", "full": "density embedding"}.items():
        network = awake(replace(TINY, mix=mix))
        result = network(hazy, **told)
        for key in told:
            other = network(hazy, **told | {key: changed[key]})
            assert torch.equal(other, result) == (key not in taken), (mix, key)


@torch.no_grad()
def test_one_path_alone_sees_what_it_can(hazy, told):
    """Windows keep to their surroundings; the scan reaches from corner to corner."""
    touched = hazy.clone()
    touched[..., :4, :4] += 0.2
    for mix, reaches in {"local": False, "global": True}.items():
        network = awake(CLIPHazeConfig(widths=(24, 24, 24), blocks=(1, 0, 0, 0, 0), mix=mix))
        network.downs, network.ups = network.downs[:0], network.ups[:0]
        features = network.stem(F.pixel_unshuffle(hazy - 0.5, 2)), network.stem(F.pixel_unshuffle(touched - 0.5, 2))
        far = [network._stage(network.levels[0], x, None, None)[..., -1, -1] for x in features]
        assert torch.equal(*far) != reaches


@torch.no_grad()
def test_clip_gives_what_the_mix_takes(hazy, tiny_clip):
    network = awake(replace(TINY, clip=str(tiny_clip)))
    seen = load_density(tiny_clip)(hazy)
    given = instruct(network, load_clip(network), hazy)
    assert torch.equal(network(hazy, **given), network(hazy, seen.density, seen.embedding))
    assert set(given) == {"density", "embedding"}
    by_density = awake(replace(TINY, clip=str(tiny_clip), mix="density"))
    assert set(instruct(by_density, load_clip(by_density), hazy)) == {"density"}
    assert load_clip(awake(replace(TINY, clip="nowhere", mix="sum"))) is None


def test_what_is_missing_is_named(hazy, told):
    with pytest.raises(ValueError, match="takes density and embedding beside the image"):
        awake()(hazy)
    with pytest.raises(ValueError, match="takes embedding beside"):
        awake()(hazy, density=told["density"])
    for network in CLIPHaze(replace(TINY, mix="sum")), DRACO():
        assert instruct(network, load_clip(network), hazy) == {}


@pytest.mark.slow
@torch.no_grad()
def test_how_many_rows_are_worked_on_at_a_time_changes_nothing(hazy, told, monkeypatch):
    network = awake()
    expected = network(hazy, **told)
    monkeypatch.setattr("dehaze.networks.blocks.rows.PART_TOKENS", 1)
    torch.testing.assert_close(network(hazy, **told), expected, atol=1e-5, rtol=1e-4)


def test_gradients_do_not_reach_clip(hazy, tiny_clip):
    network = awake(replace(TINY, clip=str(tiny_clip)))
    clip = load_clip(network)
    network.restore_unclipped(hazy, **instruct(network, clip, hazy)).mean().backward()
    assert all(parameter.grad is None for parameter in clip.parameters())


def test_another_clip_is_refused(tiny_clip):
    with pytest.raises(WeightsError, match="embeddings of 128 numbers, and the network takes 512"):
        load_clip(CLIPHaze(replace(TINY, clip=str(tiny_clip), embedding=512)))
    with pytest.raises(WeightsError, match="is neither a folder of a CLIP model nor a Hub id"):
        load_clip(CLIPHaze(replace(TINY, clip="nowhere")))


@torch.no_grad()
def test_tiles_are_told_what_the_whole_shows(tiny_clip):
    network = awake(replace(TINY, clip=str(tiny_clip)))
    dehazer = dehaze.Dehazer(
        "cliphaze_t", network, torch.device("cpu"), torch.float32, tile=96, clip=load_clip(network)
    )
    photo = torch.rand(1, 3, 100, 150)
    _, density = dehazer.restore_tensor(photo)
    assert torch.equal(density, load_density(tiny_clip).map(photo))


@torch.no_grad()
def test_cam_is_its_formula():
    torch.manual_seed(0)
    cam = Aggregation(6, 5)
    local, global_, density = torch.rand(2, 3, 4, 6), torch.rand(2, 3, 4, 6), torch.rand(2, 3, 4, 1)
    embedding = F.normalize(torch.rand(2, 5), dim=1)
    torch.testing.assert_close(cam(local, global_, density, embedding), local + global_)  # as it starts
    for parameter in cam.parameters():
        nn.init.normal_(parameter)
    at = (1, 2, 3)
    haze = density[at].logit()
    density[0], density[1, 0] = 0, 1  # whose logit is kept finite
    mixed = cam(local, global_, density, embedding)
    assert mixed.isfinite().all()
    change = cam.by_density.weight[:, 0] * haze + cam.by_density.bias + cam.by_embedding.weight @ embedding[1] * 5**0.5
    scale, shift = change.split(6)
    w = torch.sigmoid(cam.weigh.weight @ torch.cat([local[at], global_[at], haze]) + cam.weigh.bias)
    torch.testing.assert_close(mixed[at], 2 * (w * local[at] + (1 - w) * global_[at]) * (1 + scale) + shift)


@torch.no_grad()
def test_skip_fusion_is_a_softmax_of_two():
    fusion, x, skip = SkipFusion(8), torch.rand(2, 8, 4, 4), torch.rand(2, 8, 4, 4)
    logits = fusion.choose((x + skip).mean((2, 3)))
    weights = torch.stack([logits, torch.zeros_like(logits)]).softmax(0)[..., None, None]
    torch.testing.assert_close(fusion(x, skip), weights[0] * x + weights[1] * skip)
