"""The one door for users: a photograph in, a `Restoration` out."""

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dehaze import hub
from dehaze.adjust import Adjustments, adjust, check_strength, find_change, finish, of_look
from dehaze.density import HazeDensity, instruct, load_clip
from dehaze.filters.guided import follow
from dehaze.io.photo import Photo, read_photo
from dehaze.networks import NETWORKS
from dehaze.networks.base import EstimatesDensity, Network, change_fields, predicts_maps

FAST_PIXELS = 1_000_000
MIN_TILE = 64  # px: below, overlaps would be most of the work
NO_ADJUSTMENTS = Adjustments()


@dataclass(frozen=True)
class Restoration:
    """A restored photograph.

    `photo` holds the pixels with the alpha and metadata of the input, and notes of what was not taken from its file;
    `density` is the estimated haze density 1 − t [H,W] in [0,1], or None where the model estimates none; `seconds` is
    the time in the network.
    """

    photo: Photo
    density: np.ndarray | None
    seconds: float
    model: str

    @property
    def image(self) -> Image.Image:
        """The restored photograph, of the input's size and mode."""
        return self.photo.image()

    @property
    def pixels(self) -> np.ndarray:
        """The restored pixels, H×W×3, uint8 or uint16 as the input."""
        return self.photo.pixels

    def save(self, path: str | Path, *, strip_metadata: bool = False) -> Path:
        """Write the photograph in the format of the suffix; see `Photo.save`.

        With `strip_metadata` the file says nothing beside its colour profile: neither place nor date nor camera.
        """
        photo = self.photo.without_metadata() if strip_metadata else self.photo
        return photo.save(path)


class Found(NamedTuple):
    """What a network finds in a photograph: maps, and the copy that they fit; or the restored image and its density."""

    maps: tuple[Tensor, ...] = ()  # a NamedTuple of the network, of [B,C,h,w]
    seen: Tensor = torch.empty(0)  # [B,3,h,w]
    restored: Tensor | None = None  # [B,3,H,W], not adjusted
    density: Tensor | None = None  # [B,1,H,W]


@dataclass(frozen=True)
class Dehazer:
    """Restore photographs of any size and kind by a network.

    It pads to the sizes that the network accepts, and bounds memory on large photographs: a network that predicts maps
    sees a reduced copy, any other runs on overlapping tiles. `tile` sets the side of the tiles, or of a square of as
    many pixels as the copy, in px; None takes the network's own, 0 runs the whole photograph at once. With `fast`, a
    network without maps restores a copy of a megapixel, and a guided filter applies the change to the photograph.
    `adjustments` are made afterwards; `look` is the name of the look that they come from. `clip` is the CLIP model of a
    network that takes instruction.
    """

    name: str
    network: Network
    device: torch.device
    dtype: torch.dtype
    tile: int | None = None
    fast: bool = False
    look: str | None = None
    adjustments: Adjustments = NO_ADJUSTMENTS
    weights_sha256: str | None = None
    revision: str | None = None
    card: hub.Card = field(default_factory=hub.Card)
    clip: HazeDensity | None = None

    @torch.inference_mode()
    def __call__(
        self,
        source: str | Path | bytes | Image.Image | np.ndarray | Photo,
        strength: float = 1.0,
        *,
        max_megapixels: float = 60.0,
    ) -> Restoration:
        """Restore a photograph.

        `source` is a path, bytes, a Pillow image, an array H×W×3 or a `Photo`; `strength` is 0 for the input, 1 for the
        full restoration, up to 1.5 for more, and below 0, down to −1, for more haze. Raises ImageError where the source
        is not a photograph or has more than `max_megapixels`, ValueError for another strength.
        """
        check_strength(strength)
        photo = source if isinstance(source, Photo) else read_photo(source, max_megapixels=max_megapixels)
        hazy = photo.tensor()
        began = time.perf_counter()
        restored, density = self.restore_tensor(hazy, strength)
        seconds = time.perf_counter() - began
        del hazy
        map_ = None if density is None else density[0, 0].numpy()
        return Restoration(photo.with_tensor(restored), map_, seconds, self.name)

    @torch.inference_mode()
    def restore_tensor(self, hazy: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor | None]:
        """Restore a tensor [B,3,H,W] in [0,1] of any size on any device.

        Returns, on the CPU as float32, the restored image clipped to [0,1] and the haze density [B,1,H,W] or None.
        """
        return self.finish(hazy, self.find(hazy), strength)

    @torch.inference_mode()
    def find(self, hazy: Tensor) -> Found:
        """Run the network on a tensor [B,3,H,W] in [0,1]; what it finds, on the CPU, can be finished in any way."""
        if predicts_maps(self.network):
            tile = self.network.tile_size if self.tile is None else self.tile
            maps, seen = self._predict_maps(hazy, tile * tile if tile else math.inf)
            return Found(change_fields(Tensor.cpu, maps), seen.cpu())
        restored, density = self._restore(hazy)
        return Found(restored=restored, density=density)

    @torch.inference_mode()
    def finish(self, hazy: Tensor, found: Found, strength: float = 1.0) -> tuple[Tensor, Tensor | None]:
        """Return what `restore_tensor` does for `hazy`, of which the network has found `found`.

        Maps serve a copy of any size just as well; what was restored already has the size of `hazy`.
        """
        if found.restored is None and predicts_maps(self.network):

            def moved(field: Tensor) -> Tensor:
                return field.to(self.device)

            maps, curve = self._adjust_maps(change_fields(moved, found.maps), moved(found.seen), strength)
            restored, density = (part.cpu() for part in self.network.apply_maps(hazy.to(self.device), maps))
            return finish(restored, curve), density.clamp_(0, 1)
        assert found.restored is not None, "the network found maps, or restored the photograph"
        density = None if found.density is None else found.density.clamp(0, 1)
        return adjust(hazy.float().cpu(), found.restored, density, self.adjustments, strength), density

    def _restore(self, hazy: Tensor) -> tuple[Tensor, Tensor | None]:
        """Restore by a network without maps; return the image, not adjusted, and the density or None."""
        tile = self.network.tile_size if self.tile is None else self.tile
        height, width = hazy.shape[-2:]
        if self.fast and height * width > FAST_PIXELS:
            return self._follow_reduced_copy(hazy, FAST_PIXELS)
        # Once, from the whole image: estimates from tiles would differ at their borders.
        given = instruct(self.network, self.clip, hazy.to(self.device))
        largest = self.network.max_size or max(height, width)
        if not tile or (height * width <= tile * tile and max(height, width) <= largest):
            restored, density = self._run(hazy, given)
        else:
            restored, density = self._run_tiles(hazy, tile, given)
        return restored, given["density"].float().cpu() if "density" in given else density

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _run(self, hazy: Tensor, given: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Run the network once; return the restored image and the density, on the CPU as float32."""
        height, width = hazy.shape[-2:]
        margin = self.network.margin

        def padded(map_: Tensor) -> Tensor:
            return _pad(map_.to(self.device), margin, self.network.multiple_of, self.network.min_size)

        def finish(result: Tensor) -> Tensor:
            return result[..., margin : margin + height, margin : margin + width].float().cpu()

        with self._autocast():
            if not isinstance(self.network, EstimatesDensity):
                given = {key: padded(value) if value.ndim == 4 else value for key, value in given.items()}
                return finish(self.network(padded(hazy), **given)), None
            restored, density = self.network.restore_with_density(padded(hazy))
        return finish(restored), finish(density)

    def _follow_reduced_copy(self, hazy: Tensor, pixels: int) -> tuple[Tensor, Tensor | None]:
        """Restore a copy of about as many pixels, and apply its change to the photograph, which keeps its texture."""
        height, width = hazy.shape[-2:]
        size = copy_size(hazy, pixels)
        small = F.interpolate(hazy, size=size, mode="area")
        copy, density = replace(self, fast=False)._restore(small)
        restored = follow(hazy.float().cpu(), small.float().cpu(), copy.clamp_(0, 1))
        if density is not None:
            density = F.interpolate(density, size=(height, width), mode="bilinear", align_corners=False)
        return restored, density

    @torch.inference_mode()
    def predict_maps(
        self, hazy: Tensor, pixels: float, strength: float = 1.0
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Predict the maps for a tensor [B,3,H,W] in [0,1] on a copy of some `pixels`, adjusted, at this strength.

        Returns the network's NamedTuple, float32 on its device, and the curve [B,K] of the brightness or None;
        `network.apply_maps` applies maps at any size, and `dehaze.adjust.finish` the curve. Raises TypeError for a
        network that predicts no maps.
        """
        return self._adjust_maps(*self._predict_maps(hazy, pixels), strength)

    def _predict_maps(self, hazy: Tensor, pixels: float) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the maps for a copy of some `pixels`, and that copy at the size of the maps."""
        if not predicts_maps(self.network):
            raise TypeError(f"{self.name} predicts no maps: call restore_tensor")
        # Multiples of the maps' cells, so that the maps cover the copy exactly.
        scale = self.network.maps_scale
        size = copy_size(hazy, pixels, scale)
        small = F.interpolate(hazy, size=size, mode="area").to(self.device)
        margin = self.network.margin
        padded = _pad(small, margin, self.network.multiple_of, self.network.min_size)
        with self._autocast():
            maps = self.network.maps(padded)
        first = margin // scale
        inside = (..., *(slice(first, first + length // scale) for length in size))

        def cropped(field: Tensor) -> Tensor:
            return field.float()[inside]

        maps = change_fields(cropped, maps)
        seen = F.interpolate(small.float(), size=[length // scale for length in size], mode="area")
        return maps, seen

    def _adjust_maps(
        self, maps: tuple[Tensor, ...], seen: Tensor, strength: float
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        assert predicts_maps(self.network)
        if strength == 1 and self.adjustments == NO_ADJUSTMENTS:
            return maps, None
        restored, density = self.network.apply_maps(seen, maps)
        change = find_change(seen, restored, density, self.adjustments, strength)
        return self.network.change_maps(maps, change), change.curve

    def _run_tiles(self, hazy: Tensor, tile: int, given: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        overlap = min(128, tile // 4)
        height, width = hazy.shape[-2:]
        restored, density = torch.zeros_like(hazy, device="cpu"), None
        for top, rows in _spans(height, tile, overlap):
            for left, columns in _spans(width, tile, overlap):
                at = (..., slice(top, top + len(rows)), slice(left, left + len(columns)))
                weight = rows[:, None] * columns
                here = {key: value[at] if value.ndim == 4 else value for key, value in given.items()}
                part, part_density = self._run(hazy[at], here)
                restored[at] += part * weight
                if part_density is not None:
                    density = torch.zeros_like(restored[:, :1]) if density is None else density
                    density[at] += part_density * weight
        return restored, density


def copy_size(image: Tensor, pixels: float, multiple: int = 1) -> tuple[int, int]:
    """Return the height and width, multiples of `multiple`, of a copy of some `pixels` of [B,3,H,W], no larger."""
    height, width = image.shape[-2:]
    shrink = min(1, (pixels / (height * width)) ** 0.5)
    rows, columns = (max(1, round(length * shrink / multiple)) * multiple for length in (height, width))
    return rows, columns


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, Tensor]]:
    """Cover `length` pixels with tiles: the start of each, and its weights, which sum to 1 at every pixel.

    The number of tiles is minimal, and so is their length, which is the same for all.
    """
    if length <= tile:
        return [(0, torch.ones(length))]
    count = -(-(length - overlap) // (tile - overlap))
    tile = -(-(length + (count - 1) * overlap) // count)
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    total = torch.zeros(length)
    ramps: list[Tensor] = []
    for start in starts:
        distance = torch.arange(1, tile + 1.0)
        ramp = torch.minimum(distance, distance.flip(0)).clamp_max(overlap)
        ramps.append(ramp)
        total[start : start + tile] += ramp
    return [(start, ramp / total[start : start + tile]) for start, ramp in zip(starts, ramps, strict=True)]


def _pad(hazy: Tensor, margin: int, multiple_of: int, min_size: int) -> Tensor:
    """Pad by `margin` on every side, and at the right and bottom to an accepted size; mirrored where possible."""

    def after(length: int) -> int:
        wanted = max(length + 2 * margin, min_size)
        return -(-wanted // multiple_of) * multiple_of - length - margin

    bottom, right = (after(length) for length in hazy.shape[-2:])
    if not (margin or bottom or right):
        return hazy
    mirrored = max(margin, bottom) < hazy.shape[-2] and max(margin, right) < hazy.shape[-1]
    return F.pad(hazy, (margin, right, margin, bottom), mode="reflect" if mirrored else "replicate")


def load(
    name: str,
    weights: str | Path = "shipped",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tile: int | None = None,
    fast: bool = False,
    clip: str | Path | None = None,
    look: str = "photo",
) -> Dehazer:
    """Load a model by name, or by its Hub id `org/name[@revision]`, ready for photographs.

    `weights` is "shipped", a `.safetensors` file or a Hub id `org/name[@revision]`; `device` as torch names it
    (default: CUDA, Apple's MPS, or the CPU, whichever there is first); `dtype` is float32, bfloat16 or float16
    (default: bfloat16 on CUDA, else float32); `tile` and `fast` as in `Dehazer`; `clip` is the CLIP model, a folder or
    Hub id, of weights that were trained with another than the shipped one; `look` is "photo", exposed as a camera would
    have exposed the clear view, or "faithful", the scene at the photograph's exposure. Raises UnknownModelError,
    WeightsError, ValueError.
    """
    check_tile(tile)
    network, found = hub.load_network(name, weights, clip)
    adjustments = of_look(look, network.finish)
    device = find_device(device)
    if dtype is None:
        dtype = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    dtype = find_dtype(dtype)
    network = network.to(device).to(memory_format=torch.channels_last)
    clip_model = load_clip(network)
    clip_model = clip_model and clip_model.to(device)
    dehazer = Dehazer(name, network, device, dtype, tile, fast, look, adjustments, clip=clip_model)
    if found is None:
        return dehazer
    known = {"weights_sha256": found.sha256, "revision": found.revision, "card": found.card}
    return replace(dehazer, name=found.model or name, **known)


def list_models() -> list[str]:
    """List the models that can be loaded as they ship: those with shipped weights and those that need none."""
    return [name for name in NETWORKS.names() if hub.shipped(name) or NETWORKS.get(name).config_class is None]


def check_tile(tile: int | None) -> None:
    """Raise ValueError for tiles that are too small to overlap."""
    if tile is not None and tile != 0 and tile < MIN_TILE:
        raise ValueError(f"a tile of {tile} px is too small: give at least {MIN_TILE}, or 0 for none")


def find_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return the data type of this name. Raises ValueError unless networks run in it."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError("dtype must be float32, bfloat16 or float16")
    return found


def find_device(device: str | torch.device | None) -> torch.device:
    """Return the device of this name, by default the best there is. Raises ValueError if it cannot be used."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the device {str(device)!r} cannot be used here ({reason}); leave it out to have one chosen"
        ) from error
    return device
