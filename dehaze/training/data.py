"""Training samples: crops of clear photographs with depth, rendered hazy on demand."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dehaze.errors import DehazeError
from dehaze.haze import HazeRenderer
from dehaze.io.files import is_hidden
from dehaze.io.names import PHOTO_SUFFIXES
from dehaze.io.photo import read_photo
from dehaze.training.depth_repair import repair_depth

VALIDATION_INTERVAL, MAX_VALIDATION = 21, 60  # scenes
MAX_DAMAGED_SHARE = 0.01  # of the photographs; a run leaves fewer out
Source = TypeVar("Source")


@dataclass(frozen=True)
class Scene:
    """A clear photograph, its depth file, and the file of its classes where there is one."""

    photo: Path
    depth: Path
    classes: Path | None = None


def photographs(folder: Path) -> list[Path]:
    """List the photographs directly in a folder, by their suffixes, sorted."""
    return sorted(
        path for path in folder.glob("*") if path.suffix.lower() in PHOTO_SUFFIXES and not is_hidden(path.name)
    )


def find_scenes(folder: Path) -> tuple[list[Scene], list[Scene]]:
    """List the scenes of a folder, split into training and validation.

    The folder holds photographs `images/NAME.jpg` and `depth/NAME.png` (8-bit, any size, near bright, far and sky 0),
    and where it has been segmented `segmentation/NAME.png` (indices of the Cityscapes classes), by which the depth is
    repaired.
    Every 21st scene by name is for validation, from the eleventh on, up to 60. Raises DehazeError if there is no
    photograph or if one has no depth.
    """
    photos = photographs(folder / "images")
    if not photos:
        raise DehazeError(
            "holds no photograph.", "Give the folder above images/ and depth/.", subject=folder / "images"
        )
    scenes = [_scene(folder, photo) for photo in photos]
    for scene in scenes:
        if not scene.depth.exists():
            raise DehazeError("has no depth.", f"Add {scene.depth} (8-bit, near bright, far 0).", subject=scene.photo)
    validation = scenes[VALIDATION_INTERVAL // 2 :: VALIDATION_INTERVAL][:MAX_VALIDATION]
    held_out = set(validation)
    return [scene for scene in scenes if scene not in held_out], validation


def _scene(folder: Path, photo: Path) -> Scene:
    depth, classes = (folder / part / f"{photo.stem}.png" for part in ("depth", "segmentation"))
    return Scene(photo, depth, classes if classes.exists() else None)


def without_damaged(sources: Sequence[Source], say: Callable[[str], None]) -> list[Source]:
    """Return the sources (scenes, pairs or paths) whose files can all be decoded; `say` the others, by name and count.

    Reads every file once, before a run learns from any. Raises DehazeError if more than one in a hundred is damaged.
    """
    with ThreadPoolExecutor() as pool:
        complaints = list(pool.map(_damage, sources))
    found = [complaint for complaint in complaints if complaint]
    if len(found) > MAX_DAMAGED_SHARE * len(sources):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise DehazeError(
            f"{len(found)} of {len(sources)} photographs are damaged: {'; '.join(found[:3])}{more}.",
            "Replace or remove them.",
        )
    if found:
        say(f"{len(found)} of {len(sources)} photographs are damaged and left out: {'; '.join(found)}")
    return [source for source, complaint in zip(sources, complaints, strict=True) if not complaint]


def _damage(source: Any) -> str | None:
    """Say which file of a source cannot be decoded, and why."""
    files = (source,) if isinstance(source, Path) else tuple(path for path in vars(source).values() if path is not None)
    for path in files:
        try:
            Photos().read(path, "L" if isinstance(source, Scene) and path != source.photo else "RGB")
        except DehazeError as error:
            return str(error).rstrip(".")
        except Exception as error:  # decoders raise anything
            return f"{path} ({error})"
    return None


class Photos:
    """Decode photographs, and keep as many in memory as fit into `memory` bytes.

    What is kept is upright, and reduced to a shorter side of `side` px.
    """

    def __init__(self, side: float = math.inf, memory: int = 0):
        self.side, self.free = side, memory
        self._kept: dict[tuple[Path, str], Image.Image] = {}

    def read(self, path: Path, mode: str = "RGB") -> Image.Image:
        """Return a photograph of any kind that the package restores, as RGB; or a file of a map, as `L`."""
        if found := self._kept.get((path, mode)):
            return found
        with Image.open(path) if mode == "L" else read_photo(path, max_megapixels=math.inf).image() as image:
            return self._keep(path, mode, image.convert(mode))

    def read_depth(self, scene: Scene) -> Image.Image:
        """Return the depth of a scene as `L`, near bright, repaired where the classes are known."""
        if scene.classes is None:
            return self.read(scene.depth, "L")
        if found := self._kept.get((scene.depth, "repaired")):
            return found
        near = Photos().read(scene.depth, "L")
        with Image.open(scene.classes) as image:  # not converted: its pixels are indices
            classes = torch.from_numpy(np.array(image.resize(near.size, Image.Resampling.NEAREST), np.int64))
        photo = self.read(scene.photo).resize(near.size, Image.Resampling.BOX)
        depth = repair_depth(_tensor(photo), 1 - torch.from_numpy(np.array(near)).float() / 255, classes)
        repaired = Image.fromarray(((1 - depth) * 255).round().byte().numpy())
        return self._keep(scene.depth, "repaired", repaired)

    def _keep(self, path: Path, kind: str, upright: Image.Image) -> Image.Image:
        if (scale := self.side / min(upright.size)) < 1:
            width, height = (max(1, round(length * scale)) for length in upright.size)
            upright = upright.resize((width, height), Image.Resampling.LANCZOS)
        # The first are kept, not the latest: every epoch shows each photograph once, so that the latest come last.
        if (size := upright.width * upright.height * len(upright.getbands())) <= self.free:
            self.free -= size
            self._kept[path, kind] = upright
        return upright


def random_square(
    shape: tuple[int, int], smallest: float, generator: torch.Generator
) -> tuple[tuple[float, float, float, float], bool]:
    """Draw a square in an image of `shape` (width, height); its side is a share `smallest` to 1 of the shorter side.

    Returns (left, top, right, bottom) in px, and whether to mirror the crop, with probability 0.5.
    """
    scale, at_x, at_y, mirror = torch.rand(4, generator=generator).tolist()
    side = min(shape) * (smallest + (1 - smallest) * scale)
    left, top = at_x * (shape[0] - side), at_y * (shape[1] - side)
    return (left, top, left + side, top + side), mirror < 0.5


def cut(photo: Image.Image, box: tuple[float, float, float, float], size: int) -> Tensor:
    """Cut a square from a photograph and resize it to `size` px: [3,size,size] in [0,1]."""
    return _tensor(photo.resize((size, size), Image.Resampling.BICUBIC, box))


def _tensor(photo: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255


def random_crop(
    scene: Scene, size: int, generator: torch.Generator, smallest: float = 0.6, photos: Photos | None = None
) -> tuple[Tensor, Tensor]:
    """Cut a square drawn by `random_square` from a scene and resize it to `size` px.

    Returns the photograph [3,size,size] in [0,1] and its depth [size,size] in [0,1], where 1 is far.
    """
    photos = photos or Photos()
    photo, depth = photos.read(scene.photo), photos.read_depth(scene)
    box, mirrored = random_square(photo.size, smallest, generator)
    to_depth_x, to_depth_y = depth.width / photo.width, depth.height / photo.height
    depth_box = (box[0] * to_depth_x, box[1] * to_depth_y, box[2] * to_depth_x, box[3] * to_depth_y)
    clear = cut(photo, box, size)
    near = np.array(depth.resize((size, size), Image.Resampling.BILINEAR, depth_box))
    far = 1 - torch.from_numpy(near).float() / 255
    return (clear.flip(-1), far.flip(-1)) if mirrored else (clear, far)


class RealHaze:
    """Unlabelled real hazy photographs, each a file; at most `memory` bytes of them are kept decoded.

    Raises DehazeError for a folder without photographs.
    """

    SIDE = 384  # px, the shorter side

    def __init__(self, folder: Path, say: Callable[[str], None] = print, memory: int = 2**27):
        photos = photographs(folder)
        if not photos:
            raise DehazeError("holds no photograph.", "Give a folder of real hazy photographs.", subject=folder)
        self.files = without_damaged(photos, say)
        self.photos = Photos(self.SIDE, memory)

    def crop(self, size: int, generator: torch.Generator) -> Tensor:
        """Cut a random square of 60–100 % of the shorter side and resize it to `size` px: [3,size,size] in [0,1]."""
        photo = self.photos.read(self.files[int(torch.randint(len(self.files), (), generator=generator))])
        box, _ = random_square(photo.size, 0.6, generator)
        return cut(photo, box, size)


class SeededSamples(Dataset):
    """Samples made from `sources` on demand; sample i depends only on the seed and on i.

    Thus a run that resumes at step s continues with sample s × batch, and any number of workers and processes gives the
    same data. Each epoch shuffles the sources. The side of a crop is a share `smallest` to 1 of the shorter side. An
    item is the dictionary from `make` with `index`, from which an objective may seed its own draws, and from sample
    `real_from` on with a crop `real` [3,S,S] if real haze is given. At most `memory` bytes of decoded photographs are
    kept; one that is more than twice as large as its crops need is kept reduced.
    """

    def __init__(
        self,
        sources: Sequence,
        *,
        size: int,
        seed: int,
        start: int,
        stop: int,
        smallest: float = 0.6,
        real: RealHaze | None = None,
        real_from: int = 0,
        memory: int = 0,
    ):
        self.sources, self.smallest, self.real, self.real_from = sources, smallest, real, real_from
        self.size, self.seed, self.start, self.stop = size, seed, start, stop
        self.photos = Photos(2 * size / smallest, memory)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        index += self.start
        epoch, position = divmod(index, len(self.sources))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.sources))
        generator = torch.Generator().manual_seed((self.seed << 40) + index)
        item = self.make(self.sources[order[position]], generator) | {"index": torch.tensor(index)}
        if self.real is None or index < self.real_from:
            return item
        return item | {"real": self.real.crop(self.size, generator)}

    def make(self, source: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Make a sample of a source; all random numbers come from the generator."""
        raise NotImplementedError


class RenderedCrops(SeededSamples):
    """Crops of scenes, rendered hazy: `hazy`, `clear` [3,S,S] and `density` [1,S,S] = 1 − t, all in [0,1]."""

    def __init__(self, scenes: list[Scene], renderer: HazeRenderer, **which: Any):
        super().__init__(scenes, **which)
        self.renderer = renderer

    def make(self, source: Scene, generator: torch.Generator) -> dict[str, Tensor]:
        clear, depth = random_crop(source, self.size, generator, self.smallest, self.photos)
        sample = self.renderer.render(clear, depth, generator)
        return {"hazy": sample.hazy, "clear": sample.clear, "density": 1 - sample.transmission}
