from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import dehaze
from bench import datasets, metrics, protocol, runner
from bench.methods.shipped import Model, identity
from bench.record import same_output
from dehaze.networks.identity import Identity

NATIVE = protocol.get("native-v1")


class Hungry(Identity):
    """Darkens the image, and holds no more than a number of pixels at once."""

    tile_size = 1536

    def __init__(self, pixels, error):
        super().__init__()
        self.pixels, self.error, self.asked = pixels, error, []

    def forward(self, hazy):
        self.asked.append(hazy.shape[-2:])
        if hazy.shape[-1] * hazy.shape[-2] > self.pixels:
            raise self.error
        return hazy / 2


def hungry(pixels, error=None):
    error = error or torch.OutOfMemoryError("12 GiB wanted")
    return replace(dehaze.load("identity", device="cpu", look="faithful"), name="hungry", network=Hungry(pixels, error))


ON_CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("12 GiB wanted"), MemoryError(), ON_CPU])
def test_tiles_where_memory_runs_out(error, put, tmp_path):
    put(tmp_path, "small.png", size=(140, 100))
    put(tmp_path, "large.png", size=(600, 400))
    dataset = datasets.load(f"folder:{tmp_path}")
    dehazer = hungry(150 * 150, error)
    restorer = Model(dehazer)
    large, small = (
        restorer.restore_image(sample, Image.open(sample.hazy).convert("RGB")) for sample in dataset.samples
    )
    assert (large.tile, small.tile) == (150, None)
    assert dehazer.network.asked[:2] == [(400, 600), (238, 250)]  # of at most 300, and no larger than they must be
    hazy = np.asarray(Image.open(tmp_path / "large.png"))
    assert np.abs(large.pixels - hazy / 2.0).max() <= 0.5 + 1e-3


def test_a_record_stands_for_the_output_of_its_weights_configuration_and_code(put, tmp_path):
    put(tmp_path / "set", "hazy/a.png", "clear/a.png", size=(40, 40))
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")
    dehazer = dehaze.load("identity", device="cpu")
    made = runner.run(Model(dehazer, "mine"), dataset, NATIVE, {"psnr": metrics.get("psnr")}, tmp_path / "out")
    assert same_output(made, identity(dehaze.load("identity", device="cpu")))
    for change in ({"weights_sha256": "ab"}, {"tile": 128}, {"dtype": torch.bfloat16}):
        assert not same_output(made, identity(replace(dehazer, **change))), change


def test_the_configuration_of_the_network_is_part_of_the_identity():
    dehazer = dehaze.load("draco", device="cpu")
    before = identity(dehazer)
    assert identity(replace(dehazer, name="another", revision="main")) == before
    config = dehazer.network.config
    field = next(name for name, value in vars(config).items() if isinstance(value, int))
    dehazer.network.config = replace(config, **{field: getattr(config, field) + 1})
    assert identity(dehazer).config_sha256 != before.config_sha256


def test_a_run_says_which_images_came_in_tiles(put, tmp_path):
    put(tmp_path / "set", *(f"{kind}/{name}.png" for kind in ("hazy", "clear") for name in "ac"), size=(300, 200))
    put(tmp_path / "set", "hazy/b.png", "clear/b.png", size=(40, 40))
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")
    scores = {"psnr": metrics.get("psnr")}
    made = runner.run(Model(hungry(150 * 150)), dataset, NATIVE, scores, tmp_path / "out")
    assert made.tiled == {"a": 150, "c": 150}
    assert made.failures == ()
    whole = runner.run(Model(hungry(300 * 200)), dataset, NATIVE, scores, tmp_path / "whole")
    assert whole.tiled == {}
    assert whole.metrics["psnr"].mean == pytest.approx(made.metrics["psnr"].mean, abs=1e-3)


def test_what_does_not_help_is_not_tried(put, tmp_path):
    put(tmp_path, "a.png", size=(600, 400))
    [sample] = datasets.load(f"folder:{tmp_path}").samples
    hazy = Image.open(sample.hazy).convert("RGB")
    endless = hungry(0)
    with pytest.raises(torch.OutOfMemoryError):
        Model(endless).restore_image(sample, hazy)
    assert len(endless.network.asked) == 3  # whole, tiles of 300, tiles of 150
    broken = hungry(0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        Model(broken).restore_image(sample, hazy)
    assert len(broken.network.asked) == 1
    global_ = hungry(0)
    global_.network.tile_size = None  # must see the whole image
    with pytest.raises(torch.OutOfMemoryError):
        Model(global_).restore_image(sample, hazy)
    assert len(global_.network.asked) == 1


def test_the_clip_model_that_instructs_is_part_of_the_identity():
    dehazer = dehaze.load("cliphaze_t", device="cpu")
    before = identity(dehazer)
    assert identity(replace(dehazer, clip=deepcopy(dehazer.clip))) == before
    with torch.no_grad():
        next(dehazer.clip.parameters()).view(-1)[0] += 1
    assert identity(dehazer).config_sha256 != before.config_sha256
