"""Many photographs in one go: files and zip archives in, one zip archive out.

Archives come from strangers. Their members are read one by one, each by no more than a photograph may have, and none is
unpacked to disk: neither names that climb out of a folder nor bombs do harm.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dehaze.dehazer import Restoration
from dehaze.errors import DehazeError, ImageError
from dehaze.io import archive
from dehaze.io.names import claim, output_name
from dehaze.io.photo import Photo
from dehaze.page.folder import full_disk_explained, reserve


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

    def file(self, limits: Limits) -> Path | bytes:
        """Return the file, or the bytes of the member of an archive. Raises ImageError."""
        return self.path if self.member is None else archive.read(self.path, self.member, limits.photo_bytes)


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


Saved = tuple[Path, float, float]  # a result on disk, its megapixels, and the seconds in the network


def restore(
    sources: Iterable[Source],
    restorer: Callable[[Callable[[], Path | bytes], Callable[[Photo, Restoration], Saved]], Saved],
    target: Path,
    suffix: str | None = None,
    limits: Limits = Limits(),
) -> Iterator[Outcome]:
    """Restore photographs one by one into the zip archive `target`, and give the outcome of each as it is there.

    `restorer` takes a function that returns a file or its bytes, and one that makes of the photograph and its
    restoration what it returns. What fails does not stop the rest, a full disk neither. The archive is whole once the
    iterator is done or closed.
    """
    written: set[str] = set()

    def restored(source: Source) -> Saved:
        """Restore one to a file; nothing of its size stays in memory."""

        def save(photo: Photo, restoration: Restoration) -> Saved:
            name = claim(Path(output_name(source.name, photo, suffix)), written)
            return restoration.save(folder / name), photo.pixels[..., 0].size / 1e6, restoration.seconds

        return restorer(partial(source.file, limits), save)

    with _Archive(target) as results, TemporaryDirectory(dir=target.parent) as unpacked:
        folder = Path(unpacked)
        for source in sources:
            try:
                with full_disk_explained():
                    file, megapixels, seconds = restored(source)
                    results.add(file)
            except (DehazeError, ValueError) as error:
                message = str(error).replace(str(source.path), source.name).replace("The data", source.name)
                yield Outcome(source.name, error=message)
            except MemoryError:
                yield Outcome(source.name, error="There is not enough memory for it. Make it smaller.")
            else:
                yield Outcome(source.name, file.name, None, megapixels, seconds)


class _Archive:
    """A zip archive that grows by whole files: room on disk is taken before anything is written."""

    _DIRECTORY = 2_000  # bytes that the list of members grows by with each, and the end of the archive

    def __init__(self, path: Path):
        self._file = path.open("wb+")
        self._zip = zipfile.ZipFile(self._file, "w")  # stored: photographs are packed already
        self._members = 0

    def __enter__(self) -> "_Archive":
        return self

    def add(self, file: Path) -> None:
        """Move a file into the archive. Raises OSError if the disk is full; the archive is as before, then."""
        try:
            size = file.stat().st_size + (self._members + 2) * self._DIRECTORY
            reserve(self._file, size, self._zip.start_dir)
            self._zip.write(file, file.name)
            self._members += 1
        finally:
            file.unlink()

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.truncate()  # what was reserved and not needed
        self._file.close()
