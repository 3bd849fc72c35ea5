"""Predictions that come as a zip archive, from anybody: unpacked to a folder, or refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from bench.datasets import SUFFIXES, Dataset
from bench.errors import DatasetError
from dehaze.errors import ImageError
from dehaze.io import archive

IMAGE_BYTES = 100_000_000
ALL_BYTES = 4_000_000_000


@contextmanager
def unpacked(predictions: Path, dataset: Dataset, limit: int = ALL_BYTES) -> Iterator[Path]:
    """Give the folder of restored images: `predictions` itself, or what a zip archive holds, unpacked for this while.

    One folder around all images of an archive is taken off, unless the samples of `dataset` have it as well. Files that
    are no images are passed over. Raises DatasetError if the archive is damaged, unpacks to more than `limit` bytes, or
    names a place outside itself.
    """
    if predictions.suffix.lower() != ".zip" or predictions.is_dir():
        yield predictions
        return
    if not predictions.is_file():
        advice = "Give a folder of restored images, or a zip archive of one."
        raise DatasetError("does not exist.", advice, subject=predictions)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, predictions.name)
        try:
            _unpack(predictions, folder, dataset, limit)
        except ImageError as error:
            raise DatasetError.like(error) from error
        except OSError as error:  # a name that is too long, a file where a folder should be, a full disk
            raise DatasetError(f"cannot be unpacked: {error.strerror}.", subject=predictions) from error
        try:
            yield folder
        except DatasetError as error:
            if error.subject == folder:  # which is gone by the time somebody reads this
                error.subject = predictions
            raise


def _unpack(path: Path, folder: Path, dataset: Dataset, limit: int) -> None:
    members = [
        member for member in archive.list_members(path) if archive.member_path(member).suffix.lower() in SUFFIXES
    ]
    if len(members) > 2 * len(dataset.samples) + 10:
        raise DatasetError(
            f"holds {len(members)} images, and {dataset.name} {len(dataset.samples)}.",
            "Give one restored image for each hazy one.",
            subject=path,
        )
    places = [archive.member_path(member) for member in members]
    for place in places:
        if place.is_absolute() or ".." in place.parts or ":" in str(place) or not str(place).isprintable():
            raise DatasetError(f"names a place outside itself, {str(place)!r}.", "Pack it again.", subject=path)
    around = {place.parts[0] for place in places}
    if len(around) == 1 and not any(sample.id.startswith(f"{min(around)}/") for sample in dataset.samples):
        places = [PurePosixPath(*place.parts[1:]) if len(place.parts) > 1 else place for place in places]
    folder.mkdir()
    left = limit
    for member, place in zip(members, places, strict=True):
        data = archive.read_member(path, member, min(left, IMAGE_BYTES))
        left -= len(data)
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise DatasetError(f"holds {place} twice.", "Keep one of the two.", subject=path)
        target.write_bytes(data)
