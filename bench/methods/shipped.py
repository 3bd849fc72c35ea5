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
from bench.errors import UsageError
from bench.methods.base import Restored
from bench.protocol import eight_bit
from bench.record import Identity, Method
from bench.schema import name_in_look
from dehaze import Dehazer
from dehaze.adjust import Adjustments, of_look
from dehaze.memory import out_of_memory
from dehaze.networks.base import Network
from dehaze.outside import Outside, count_parameters, state_sha256

_LEAST_TILE = 128  # pixels; a smaller side would not help where memory runs out
# Fields of a Dehazer that change no pixel, or that the identity names apart.
_NO_SETTING = {"name", "network", "device", "look", "weights_sha256", "revision", "card"}


def identity(dehazer: Dehazer) -> Identity:
    """Return which output a model gives today: hashes of its weights, its configuration and the code."""
    network = dehazer.network
    settings = {field.name: getattr(dehazer, field.name) for field in fields(dehazer) if field.name not in _NO_SETTING}
    settings["network"] = None if network.config_class is None else asdict(network.config)
    settings["clip"] = dehazer.clip and state_sha256(dehazer.clip.state_dict())
    settings["tone"] = _tone(dehazer)
    text = json.dumps(settings, sort_keys=True, default=str)
    return Identity(
        weights_sha256=dehazer.weights_sha256,
        config_sha256=hashlib.sha256(text.encode()).hexdigest(),
        code=environment.code(),
    )


def _tone(dehazer: Dehazer) -> list[Any] | None:
    """Return what decides the curve of the brightness, None where it is left alone."""
    if not dehazer.adjustments.brightness:
        return None
    from dehaze.tone import load_tone_head

    head = load_tone_head()
    return [asdict(head.config), state_sha256(head.state_dict())]


def changed_adjustments(dehazer: Dehazer) -> dict[str, float]:
    """Return the amounts of those adjustments that are not the look's own."""
    own = asdict(of_look(dehazer.look or "faithful", dehazer.network.finish))
    return {name: amount for name, amount in asdict(dehazer.adjustments).items() if amount != own[name]}


def scored_adjustments(method: Method, network: Network) -> Adjustments:
    """Return the adjustments that the results of a record's method have, if `network` made them."""
    return replace(of_look(method.look or "faithful", network.finish), **method.adjustments)


def ablations(dehazer: Dehazer) -> list[Dehazer]:
    """Return a model as it is, with each of its adjustments alone switched off, and with none.

    Raises UsageError if it makes none.
    """
    used = [name for name, amount in asdict(dehazer.adjustments).items() if amount]
    if not used:
        raise UsageError(f"{dehazer.name} makes no adjustments that could be switched off.", "Leave --ablate out.")
    off = [(), *((name,) for name in used), tuple(used)]
    return [
        replace(dehazer, adjustments=replace(dehazer.adjustments, **dict.fromkeys(names, 0.0)))
        for names in dict.fromkeys(off)
    ]


class Model:
    """Restore with a model; records call it `name`, by default its own, and say `about` it what its card does not.

    The look photo, and adjustments that are not the look's own, are added to the name.

    Where memory runs out, the model restores the image in tiles and halves them until they fit. A model that must see
    the whole image fails instead, since tiles would make it another method.
    """

    def __init__(self, dehazer: Dehazer, name: str | None = None, about: Mapping[str, Any] | None = None):
        self._dehazer = dehazer
        self.device = str(dehazer.device)
        self.dtype = str(dehazer.dtype).removeprefix("torch.")
        card, adjustments = dehazer.card, changed_adjustments(dehazer)
        trained_on = card.get("datasets") or ()
        known = {
            "parameters": count_parameters(dehazer.network),
            "license": card.get("license"),
            "paper": card.get("paper"),
            "trained_on": (trained_on,) if isinstance(trained_on, str) else tuple(trained_on),
            "look": dehazer.look,
            "adjustments": adjustments,
        }
        self.method = Method(
            name=name_in_look(name or dehazer.name, dehazer.look, adjustments),
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
