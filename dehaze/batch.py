"""Many photographs in one go: files and zip archives in, one zip archive out.

Archives come from strangers. Their members are read one by one, each by no more than a photograph may have, and none is
unpacked to disk: neither names that climb out of a folder nor bombs do harm.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dehaze import archive, image
from dehaze.dehazer import Restoration
from dehaze.errors import DehazeError, ImageError


@dataclass(frozen=True)
class Limits:
    """What a batch may hold: photographs, bytes of each, bytes of all archives unpacked, megapixels of each."""

    photos: int = 200
    photo_bytes: int = 100_000_000
    unpacked_bytes: int = 2_000_000_000
    megapixels: float = 60.0


@dataclass(frozen=True)
class Source:
    """A photograph to come: its name, the file that it is or lies in, and the member that it is there."""

    name: str
    path: Path
    member: zipfile.ZipInfo | None = None

    def read(self, limits: Limits) -> image.Photo:
        """Read the photograph. Raises ImageError."""
        if self.member is None:
            return image.read(self.path, max_megapixels=limits.megapixels)
        data = archive.read(self.path, self.member, limits.photo_bytes)
        return image.read(data, max_megapixels=limits.megapixels)


@dataclass(frozen=True)
class Outcome:
    """What became of a photograph: `written` is its name in the archive of results, or `error` says why there is none.

    `seconds` is the time in the network.
    """

    name: str
    written: str | None = None
    error: str | None = None
    megapixels: float = 0.0
    seconds: float = 0.0


def find(paths: Iterable[Path], limits: Limits = Limits()) -> list[Source]:
    """List the photographs in files and zip archives: whatever is no archive counts as one.

    Folders and hidden members of archives are passed over. Raises ImageError if an archive cannot be read or if there
    are too many photographs, or too large ones, in all.
    """
    sources: list[Source] = []
    for path in paths:
        sources += _members(path) if path.suffix.lower() == ".zip" else [Source(path.name, path)]
    if not sources:
        raise ImageError("There is no photograph in it. Give photographs, or a zip archive of some.")
    if len(sources) > limits.photos:
        raise ImageError(f"These are {len(sources)} photographs, and the limit is {limits.photos}. Give fewer at once.")
    unpacked = sum(source.member.file_size for source in sources if source.member)
    if unpacked > limits.unpacked_bytes:
        raise ImageError(
            f"The archives unpack to {unpacked / 1e9:.1f} GB, and the limit is {limits.unpacked_bytes / 1e9:g}. "
            "Give fewer photographs at once."
        )
    return sources


def _members(path: Path) -> list[Source]:
    def name(member: zipfile.ZipInfo) -> str:
        return "".join(filter(str.isprintable, archive.place(member).name))[-100:]

    return [Source(name(member), path, member) for member in archive.members(path)]


def output_name(name: str, photo: image.Photo, suffix: str | None = None) -> str:
    """Name a restored file after its input, in the format of `suffix` or the input's own, if that can hold it."""
    path = Path(name)
    suffix = suffix or path.suffix.lower()
    if suffix not in image.WRITABLE or (photo.alpha is not None and suffix in (".jpg", ".jpeg", ".bmp")):
        suffix = ".png"
    return f"{path.stem}_dehazed{suffix}"


def restore(
    sources: Iterable[Source],
    restorer: Callable[[image.Photo], Restoration],
    target: Path,
    suffix: str | None = None,
    limits: Limits = Limits(),
) -> Iterator[Outcome]:
    """Restore photographs one by one into the zip archive `target`, and give the outcome of each as it is there.

    What fails does not stop the rest. The archive is whole once the iterator is done or closed.
    """
    written: set[str] = set()
    with zipfile.ZipFile(target, "w") as results, TemporaryDirectory() as folder:
        for source in sources:
            try:
                photo = source.read(limits)
                restoration = restorer(photo)
                name = _unlike(output_name(source.name, photo, suffix), written)
                file = restoration.save(Path(folder, name))
                results.write(file, name)  # stored: photographs are packed already
                file.unlink()
            except (DehazeError, ValueError) as error:
                message = str(error).replace(str(source.path), source.name).replace("The data", source.name)
                yield Outcome(source.name, error=message)
            except MemoryError:
                yield Outcome(source.name, error="There is not enough memory for it. Make it smaller.")
            else:
                written.add(name)
                yield Outcome(source.name, name, None, photo.pixels[..., 0].size / 1e6, restoration.seconds)


def _unlike(name: str, others: set[str]) -> str:
    """Number a name that others have already."""
    path, count = Path(name), 1
    while name in others:
        count += 1
        name = f"{path.stem}_{count}{path.suffix}"
    return name
