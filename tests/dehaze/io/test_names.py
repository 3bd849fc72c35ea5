"""Which photographs a request names, and what their results are called."""

import errno
import os
import re
import socket
import unicodedata
from pathlib import Path

import pytest

from dehaze.errors import ImageError, OutputError
from dehaze.io.names import choose_targets, claim_path, find_photos


@pytest.fixture
def album(tmp_path, monkeypatch) -> Path:
    for name in ["b.JPG", "a.png", "notes.txt", ".hidden.png", "sub/c.webp", "sub/.git/d.png", "raw.dng", "e[1].png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "patterns, names",
    [
        (["."], ["a.png", "b.JPG", "e[1].png", "sub/c.webp"]),
        (["raw.dng", "notes.txt"], ["raw.dng", "notes.txt"]),  # named outright, in the order given
        (["*"], ["a.png", "b.JPG", "e[1].png", "sub/c.webp"]),
        (["*.png"], ["a.png", "e[1].png"]),
        (["**/*.webp"], ["sub/c.webp"]),
        (["e[1].png"], ["e[1].png"]),
        (["sub", "a.png", "./a.png", "sub/../a.png", "*.png"], ["sub/c.webp", "a.png", "e[1].png"]),
        ("sub", ["sub/c.webp"]),
        ([Path("sub")], ["sub/c.webp"]),
        (["sub/.git"], ["sub/.git/d.png"]),  # named outright
        ([], []),
    ],
    ids=str,
)
def test_find_lists_photographs(album, patterns, names):
    assert [path.as_posix() for path in find_photos(patterns).photos] == names


@pytest.mark.parametrize("pattern", ["missing.jpg", "bare", "*.tif", "missing/**", "*.dng", ""])
def test_pattern_that_names_nothing_is_refused(album, pattern):
    with pytest.raises(ImageError, match=rf"'{re.escape(pattern)}' names no photograph\. Give files"):
        find_photos(["a.png", pattern])


def test_folder_that_cannot_be_looked_into_is_refused(album, monkeypatch):
    def refuse(top, onerror):
        onerror(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "./sub"))
        return iter(())

    monkeypatch.setattr(os, "walk", refuse)
    with pytest.raises(ImageError, match=r"^\./sub cannot be searched: Permission denied\. Check its permissions"):
        find_photos(["."])


def make(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize("pattern", [".", "**", "in/*", "**/*.jpg"])
def test_thumbnails_of_a_synology_are_passed_over(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "in/IMG_1.jpg", "in/Thumbs.db", "in/@eaDir/IMG_1.jpg/SYNOPHOTO_THUMB_M.jpg", "in/@home/b.jpg")
    assert [path.as_posix() for path in find_photos([pattern]).photos] == ["in/@home/b.jpg", "in/IMG_1.jpg"]
    outright = find_photos(["in/@eaDir/*/*.jpg"]).photos
    assert [path.name for path in outright] == ["SYNOPHOTO_THUMB_M.jpg"]


@pytest.mark.parametrize("pattern", [".", "*.jpg"])
def test_what_is_no_file_is_passed_over_where_it_was_not_named(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "a.jpg")
    os.mkfifo("pipe.jpg")
    Path("link.jpg").symlink_to("pipe.jpg")
    Path("broken.jpg").symlink_to("gone.jpg")  # reported when it is read
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    assert find_photos([pattern]) == ([Path("a.jpg"), Path("broken.jpg")], [])
    assert find_photos(["pipe.jpg"]).photos == [Path("pipe.jpg")]  # refused by name when it is read


@pytest.mark.parametrize("pattern", [".", "*", "**/*.*"])
def test_results_beside_their_originals_are_passed_over(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    taken = [
        "a.jpg",
        "b.GIF",
        "e_dehazed.png",  # without its original
        "f_dehazed.png",  # the original is no photograph
        "g_dehazed_x.png",
        "g.png",
        "sub/a_dehazed.jpg",  # the original lies elsewhere
        unicodedata.normalize("NFD", "é.JPG"),
    ]
    results = ["a_dehazed.jpg", "a_dehazed_2.jpg", "a_dehazed_dehazed.jpg", "b_dehazed.png", "É_dehazed.jpg"]
    make(tmp_path, *taken, *results, "f.txt")
    found = find_photos([pattern])
    assert sorted(path.as_posix() for path in found.photos) == sorted(taken)
    assert sorted(path.as_posix() for path in found.results) == sorted(results)


@pytest.mark.parametrize("order", [1, -1])
def test_a_result_that_is_named_is_taken(tmp_path, order):
    _, result = make(tmp_path, "a.jpg", "a_dehazed.jpg")
    assert find_photos([result]) == ([result], [])
    found = find_photos([tmp_path, result][::order])
    assert (len(found.photos), found.results) == (2, [])


def test_results_alone_are_refused(tmp_path):
    make(tmp_path, "a.jpg", "a_dehazed.jpg")
    with pytest.raises(ImageError, match=r"a_dehazed\.jpg is a result of an earlier run.* Give the file by its name"):
        find_photos([f"{tmp_path}/*_dehazed.jpg"])


def test_a_photograph_is_found_once_by_whatever_path(tmp_path):
    (photo,) = make(tmp_path, "in/a.jpg")
    (tmp_path / "alias").symlink_to("in")
    (tmp_path / "in" / "link.jpg").symlink_to("a.jpg")  # another name has its own result
    paths = [photo, tmp_path / "alias", tmp_path / "in" / ".." / "in" / "a.jpg", tmp_path / "alias" / "a.jpg"]
    assert find_photos(paths).photos == [photo, tmp_path / "alias" / "link.jpg"]


def names(targets: dict[Path, Path], folder: Path) -> list[str]:
    return [target.relative_to(folder).as_posix() for target in targets.values()]


@pytest.mark.parametrize(
    "photos, beside, within",
    [
        (["a.avif", "a.gif", "a.png"], ["a_dehazed.png", "a_dehazed_2.png", "a_dehazed_3.png"], None),
        (["a.JPG", "a.jpg"], ["a_dehazed.jpg", "a_dehazed_2.jpg"], ["a.JPG", "a_2.jpg"]),
        (["é.png", "e\u0301.png"], ["é_dehazed.png", "e\u0301_dehazed_2.png"], ["é.png", "e\u0301_2.png"]),
        (["Straße.png", "STRASSE.png"], ["Straße_dehazed.png", "STRASSE_dehazed_2.png"], None),
        (["x/a.gif", "x/a.png", "y/a.gif"], ["x/a_dehazed.png", "x/a_dehazed_2.png", "y/a_dehazed.png"], None),
        (["X/a.png", "x/a.png"], ["X/a_dehazed.png", "x/a_dehazed_2.png"], ["X/a.png", "x/a_2.png"]),
        (["a.gif", "a.png", "a_2.png"], ["a_dehazed.png", "a_dehazed_2.png", "a_2_dehazed.png"], None),
        (["a.gif", "a_2.gif", "a.png"], None, ["a.png", "a_2.png", "a_3.png"]),
        (["raw.dng"], ["raw_dehazed.png"], ["raw.png"]),
    ],
    ids=str,
)
def test_no_two_results_share_a_file(tmp_path, photos, beside, within):
    files = make(tmp_path / "in", *photos)
    if beside:
        assert names(choose_targets(files), tmp_path / "in") == beside
    within = within or [name.replace("_dehazed", "") for name in beside]
    if "a_2.png" not in photos:
        assert names(choose_targets(files, str(tmp_path / "out")), tmp_path / "out") == within


def test_results_beside_a_folder_and_its_alias_share_no_file(tmp_path):
    make(tmp_path, "in/a.gif", "in/a.png")
    (tmp_path / "alias").symlink_to("in")
    targets = choose_targets([tmp_path / "in" / "a.gif", tmp_path / "alias" / "a.png"])
    assert names(targets, tmp_path) == ["in/a_dehazed.png", "alias/a_dehazed_2.png"]


def test_a_link_keeps_its_place_below_the_output(tmp_path):
    make(tmp_path, "objects/0123")
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).symlink_to("../objects/0123")
    targets = choose_targets(find_photos([tmp_path / "in"]).photos, str(tmp_path / "out"))
    assert names(targets, tmp_path) == ["out/a.jpg", "out/b.jpg"]


@pytest.mark.parametrize(
    "photos, output",
    [
        (["a.png"], "."),
        (["a.png"], "a.png"),
        (["a.png"], "hard.png"),
        (["a.png"], "soft.png"),
        (["a.gif", "a.png"], "."),
        (["a.png", "a_dehazed.png"], None),
        (["a.gif", "a.png", "a_dehazed_2.png"], None),
    ],
    ids=str,
)
def test_a_photograph_to_restore_is_no_target(tmp_path, monkeypatch, photos, output):
    monkeypatch.chdir(tmp_path)
    files = make(Path(), *photos)
    os.link(files[0], "hard.png")
    Path("soft.png").symlink_to(files[0])
    with pytest.raises(OutputError, match="is an input and would be overwritten"):
        choose_targets(files, output)


@pytest.mark.parametrize(
    "output, target",
    [
        ("2024.08.12/", "2024.08.12/a.jpg"),
        ("2024.08.12", "2024.08.12/a.jpg"),
        ("trip.v2", "trip.v2/a.jpg"),
        ("out", "out/a.jpg"),
        ("old.png/", "old.png/a.jpg"),
        ("there.png", "there.png/a.jpg"),  # a folder
        ("new.png", "new.png"),
        ("NEW.TIFF", "NEW.TIFF"),
    ],
)
def test_an_output_is_a_file_if_it_has_the_suffix_of_an_image(tmp_path, monkeypatch, output, target):
    monkeypatch.chdir(tmp_path)
    Path("there.png").mkdir()
    photos = make(Path(), "a.jpg", "b.jpg")
    assert choose_targets(photos[:1], output)[photos[0]].as_posix() == target
    if target.endswith("a.jpg"):
        assert [path.name for path in choose_targets(photos, output).values()] == ["a.jpg", "b.jpg"]
    else:
        with pytest.raises(OutputError, match=r"is one file, but 2 photographs are given\. Name a folder"):
            choose_targets(photos, output)


def test_an_output_in_a_format_that_cannot_be_written_is_refused_beforehand(tmp_path):
    with pytest.raises(OutputError, match=r"suffix '\.gif' is unknown\. Use \.png"):
        choose_targets(make(tmp_path, "a.jpg"), "out.gif")


def test_a_name_too_long_for_the_disk_is_left_to_the_writing(tmp_path):
    photos = make(tmp_path, f"{'x' * 250}.png")
    assert len(choose_targets(photos)) == 1


def test_names_are_numbered_until_one_is_free():
    taken: set[str] = set()
    wanted = ["a.png", "A.png", "a.png", "a_2.png", "b.png"]
    assert [claim_path(Path(name), taken).name for name in wanted] == [
        "a.png",
        "A_2.png",
        "a_3.png",
        "a_2_2.png",
        "b.png",
    ]
