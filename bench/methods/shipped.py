"""Restore with a model, of this project or from outside, and say which output its results stand for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from PIL import Image

from bench import environment
from bench.datasets import Sample
from bench.methods.base import Restored
from bench.protocol import eight_bit
from bench.record import Identity, Method
from dehaze import Dehazer
from dehaze.memory import out_of_memory
from dehaze.outside import Outside, count_parameters, state_sha256

_LEAST_TILE = 128  # pixels; a smaller side would not help where memory runs out
# Fields of a Dehazer that change no pixel, or that the identity names apart.
_NO_SETTING = {"name", "network", "device", "weights_sha256", "revision", "card"}


def identity(dehazer: Dehazer) -> Identity:
    """Return which output a model gives today: hashes of its weights, its configuration and the code."""
    network = dehazer.network
    settings = {field.name: getattr(dehazer, field.name) for field in fields(dehazer) if field.name not in _NO_SETTING}
    settings["network"] = None if network.config_class is None else asdict(network.config)
    settings["clip"] = dehazer.clip and state_sha256(dehazer.clip.state_dict())
    text = json.dumps(settings, sort_keys=True, default=str)
    return Identity(
        weights_sha256=dehazer.weights_sha256,
        config_sha256=hashlib.sha256(text.encode()).hexdigest(),
        code=environment.code(),
    )


class Model:
    """Restore with a model; records call it `name`, by default its own, and say `about` it what its card does not.

    Where memory runs out, the model restores the image in tiles and halves them until they fit. A model that must see
    the whole image fails instead, since tiles would make it another method.
    """

    def __init__(self, dehazer: Dehazer, name: str | None = None, about: Mapping[str, Any] | None = None):
        self._dehazer = dehazer
        self.device = str(dehazer.device)
        self.dtype = str(dehazer.dtype).removeprefix("torch.")
        card = dehazer.card
        trained_on = card.get("datasets") or ()
        known = {
            "parameters": count_parameters(dehazer.network),
            "license": card.get("license"),
            "paper": card.get("paper"),
            "trained_on": (trained_on,) if isinstance(trained_on, str) else tuple(trained_on),
        }
        self.method = Method(
            name=name or dehazer.name,
            source="outside" if isinstance(dehazer.network, Outside) else "model",
            revision=dehazer.revision,
            **asdict(identity(dehazer)),
            **known | dict(about or {}),
        )

    def restore_image(self, sample: Sample, hazy: Image.Image) -> Restored:
        dehazer, tile = self._dehazer, None
        while True:
            try:
                restoration = dehazer(hazy)
                return Restored(eight_bit(restoration.pixels), restoration.seconds, tile)
            except (MemoryError, RuntimeError) as error:  # torch has a class of its own for some devices alone
                tile = min(tile or dehazer.network.tile_size or 0, max(hazy.size)) // 2
                if not out_of_memory(error) or tile < _LEAST_TILE:
                    raise
            # Out here, where nothing of the failed attempt is held any more.
            if dehazer.device.type == "cuda":
                torch.cuda.empty_cache()
            dehazer = replace(dehazer, tile=tile)
