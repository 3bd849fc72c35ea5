import errno
import io
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from dehaze.dehazer import Restoration
from dehaze.errors import ImageError
from dehaze.io.photo import read_photo
from dehaze.page import batch


def inverted(given, finish, max_megapixels=60):
    """Restore by a rule that is easy to check."""
    photo = read_photo(given(), max_megapixels=max_megapixels)
    return finish(photo, Restoration(photo.with_tensor(1 - photo.tensor()), None, 0.25, "inverse"))


def encoded(colour, suffix="PNG", size=(8, 6)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, suffix)
    return file.getvalue()


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return path


def run(sources, folder, limits=batch.Limits()):
    restorer = partial(inverted, max_megapixels=limits.megapixels)
    outcomes = list(batch.restore_photos(sources, restorer, folder / "out.zip", limits=limits))
    with zipfile.ZipFile(folder / "out.zip") as made:
        return outcomes, {name: np.asarray(Image.open(made.open(name))) for name in made.namelist()}


def test_photographs_and_archives_become_one_archive(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded((10, 20, 30)))
    members = {"trip/": b"", "trip/a.png": encoded((1, 2, 3)), "trip/.DS_Store": b"x", "__MACOSX/trip/a.png": b"x"}
    zipped = archive(tmp_path / "many.ZIP", members)
    outcomes, written = run(batch.find([tmp_path / "a.png", zipped]), tmp_path)

    assert [(outcome.name, outcome.written) for outcome in outcomes] == [
        ("a.png", "a_dehazed.png"),
        ("a.png", "a_dehazed_2.png"),
    ]
    assert all(outcome.megapixels == 48e-6 and outcome.seconds == 0.25 for outcome in outcomes)
    assert written["a_dehazed.png"][0, 0].tolist() == [245, 235, 225]
    assert written["a_dehazed_2.png"][0, 0].tolist() == [254, 253, 252]


def test_what_fails_does_not_stop_the_rest(tmp_path):
    whole = encoded((9, 9, 9), "JPEG", (64, 64))
    members = {"half.jpg": whole[: len(whole) // 2], "letter.png": b"Dear Sir or Madam", "good.jpg": whole}
    members |= {"empty.jpg": b"", "inner.zip": b"PK\x05\x06" + bytes(18), "huge.png": encoded("red", size=(300, 300))}
    sources = batch.find([archive(tmp_path / "a.zip", members)])
    outcomes, written = run(sources, tmp_path, limits=batch.Limits(megapixels=0.05))

    errors = {outcome.name: outcome.error for outcome in outcomes}
    assert list(written) == ["good_dehazed.jpg"] and errors.pop("good.jpg") is None
    assert "half.jpg is damaged or cut short" in errors["half.jpg"]
    assert "letter.png is not an image" in errors["letter.png"]
    assert "empty.jpg is empty" in errors["empty.jpg"]
    assert "inner.zip is not an image" in errors["inner.zip"]
    assert "huge.png has 0.1 megapixels (300×300)" in errors["huge.png"]


def test_names_cannot_leave_the_archive(tmp_path):
    outside = tmp_path / "outside.png"
    names = ["../outside.png", "/etc/outside.png", "..\\..\\outside.png", str(outside), "a\nb\x1b[31m.png"]
    sources = batch.find([archive(tmp_path / "a.zip", dict.fromkeys(names, encoded("blue")))])
    before = sorted(tmp_path.rglob("*"))
    _, written = run(sources, tmp_path)
    assert all("/" not in name and "\\" not in name and name.isprintable() for name in written)
    assert len(written) == 5
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "out.zip"])


def test_bombs_are_refused_before_they_unfold(tmp_path):
    limits = batch.Limits(photo_bytes=10_000, unpacked_bytes=50_000)
    bomb = archive(tmp_path / "a.zip", {"a.png": bytes(40_000)}, compression=zipfile.ZIP_DEFLATED)
    outcomes, written = run(batch.find([bomb], limits), tmp_path, limits=limits)
    assert "more than 0 MB" in outcomes[0].error and not written

    wide = {f"{i}.png": bytes(9_000) for i in range(6)}
    with pytest.raises(ImageError, match="unpack to"):
        batch.find([archive(tmp_path / "b.zip", wide, compression=zipfile.ZIP_DEFLATED)], limits)
    with pytest.raises(ImageError, match="6 photographs, and the limit is 5"):
        batch.find([tmp_path / "b.zip"], batch.Limits(photos=5))
    hidden = archive(tmp_path / "hidden.zip", {".a.png": b""})
    for named in (tmp_path / "b.zip", hidden):  # again and again, as a client may; no more are looked at than needed
        paths = iter([named] * 100)
        with pytest.raises(ImageError, match="photographs, and the limit is 8"):
            batch.find(paths, batch.Limits(photos=8))
        assert len(list(paths)) >= 91

    # A header that states less than there is: no more is read than it states, and the sum does not fit.
    data = bytearray((tmp_path / "a.zip").read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    (tmp_path / "c.zip").write_bytes(data)
    outcomes, _ = run(batch.find([tmp_path / "c.zip"], limits), tmp_path, limits=limits)
    assert "a.png" in outcomes[0].error


def test_archives_of_countless_members_are_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("dehaze.io.archive._MAX_DIRECTORY_BYTES", 200)
    many = archive(tmp_path / "a.zip", {f"{i}.png": b"" for i in range(9)})
    monkeypatch.setattr(zipfile, "ZipFile", None)  # it would list them
    with pytest.raises(ImageError, match="too many members"):
        batch.find([many])


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive" * 100, b"PK\x05\x06" + b"\xff" * 18])
def test_damaged_archives_are_named(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.zip"):
        batch.find([tmp_path / "a.zip"])


def test_archives_that_cannot_be_read_are_refused(tmp_path):
    exotic = archive(tmp_path / "a.zip", {"a.png": encoded("red")}, compression=zipfile.ZIP_BZIP2)
    assert "ordinary zip" in run(batch.find([exotic]), tmp_path)[0][0].error
    plain = bytearray(archive(tmp_path / "b.zip", {"a.png": encoded("red")}).read_bytes())
    plain[plain.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of encryption
    (tmp_path / "b.zip").write_bytes(plain)
    assert "without a password" in run(batch.find([tmp_path / "b.zip"]), tmp_path)[0][0].error
    with pytest.raises(ImageError, match="no photograph in it"):
        batch.find([archive(tmp_path / "c.zip", {})])


def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch):
    """The second result finds no room; the third does again."""
    images = {f"{colour}.png": encoded(colour) for colour in ("red", "green", "blue")}
    reserved, real = [], batch.reserve

    def reserve(file, size, start):
        reserved.append(size)
        if len(reserved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, size, start)

    monkeypatch.setattr(batch, "reserve", reserve)
    outcomes, written = run(batch.find([archive(tmp_path / "a.zip", images)]), tmp_path)
    assert [outcome.written for outcome in outcomes] == ["red_dehazed.png", None, "blue_dehazed.png"]
    assert "disk is full" in outcomes[1].error
    assert list(written) == ["red_dehazed.png", "blue_dehazed.png"]
    assert (tmp_path / "out.zip").read_bytes()[-22:-18] == b"PK\5\6"  # nothing of what was reserved is left


def test_no_exception_of_one_photograph_ends_the_others(tmp_path):
    sources = batch.find([archive(tmp_path / "a.zip", {name: encoded("red") for name in ("a.png", "b.png", "c.png")})])

    def restorer(given, finish):
        calls.append(given)
        if len(calls) == 2:
            raise ZeroDivisionError("inner matters")
        return inverted(given, finish)

    calls = []
    outcomes = list(batch.restore_photos(sources, restorer, tmp_path / "out.zip"))
    assert [outcome.written for outcome in outcomes] == ["a_dehazed.png", None, "c_dehazed.png"]
    assert outcomes[1].error == "It cannot be restored. The other photographs go on."


@pytest.mark.parametrize("name", ["写" * 90 + ".png", "🌫" * 80 + ".jpg", "a" * 300 + ".png"])
def test_a_name_may_be_longer_than_those_of_a_disk(tmp_path, name):
    outcomes, written = run(batch.find([archive(tmp_path / "a.zip", {name: encoded("red")})]), tmp_path)
    assert [outcome.error for outcome in outcomes] == [None]
    assert len(written) == 1 and next(iter(written)).startswith(name[:50])


def test_broken_off_in_the_middle_leaves_a_whole_archive(tmp_path):
    sources = batch.find([archive(tmp_path / "a.zip", {"a.png": encoded("red"), "b.png": encoded("blue")})])
    results = batch.restore_photos(sources, inverted, tmp_path / "out.zip")
    assert next(results).written == "a_dehazed.png"
    results.close()
    assert zipfile.ZipFile(tmp_path / "out.zip").namelist() == ["a_dehazed.png"]


@pytest.mark.parametrize(
    ("name", "mode", "suffix", "result"),
    [
        ("a.jpg", "RGB", None, "a_dehazed.jpg"),
        ("a.b.JPEG", "L", None, "a.b_dehazed.jpeg"),
        ("a.png", "RGBA", None, "a_dehazed.png"),
        ("a.jpg", "RGBA", None, "a_dehazed.png"),
        ("a.webp", "RGBA", None, "a_dehazed.webp"),
        ("a.gif", "RGB", None, "a_dehazed.png"),
        ("a", "RGB", None, "a_dehazed.png"),
        ("a.jpg", "RGB", ".png", "a_dehazed.png"),
        ("a.heic", "RGB", ".jpg", "a_dehazed.jpg"),
        ("a.png", "RGBA", ".jpg", "a_dehazed.png"),
        ("a.jpg", "I;16", None, "a_dehazed.png"),
        ("a.png", "I;16", ".jpg", "a_dehazed.jpg"),
        ("", "RGB", None, "_dehazed.png"),
    ],
)
def test_results_keep_name_and_format(name, mode, suffix, result):
    assert batch.output_name(name, read_photo(Image.new(mode, (4, 4))), suffix) == result


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.bmp"])
def test_an_alpha_that_is_opaque_keeps_name_and_format(name):
    opaque = read_photo(Image.new("RGBA", (4, 4), (1, 2, 3, 255)))
    assert batch.output_name(name, opaque) == name.replace("a.", "a_dehazed.")
    assert batch.output_name("a.png", opaque, ".jpg") == "a_dehazed.jpg"


def test_metadata_stays_or_is_stripped_and_losses_are_named(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(file, "PNG", exif=exif, save_all=True, append_images=frames[1:])
    sources = batch.find([archive(tmp_path / "a.zip", {"a.png": file.getvalue()})])
    for strip in (False, True):
        (outcome,) = batch.restore_photos(sources, inverted, tmp_path / "out.zip", strip_metadata=strip)
        assert outcome.notes == ("It holds 2 frames; the first was taken.",)
        assert "It holds 2 frames" in batch.status(sources, [outcome])
        with zipfile.ZipFile(tmp_path / "out.zip") as made:
            assert (b"Maker" in made.read("a_dehazed.png")) == (not strip)
