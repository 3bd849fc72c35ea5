"""Which photographs a request names, and what their results are called."""

import errno
import os
import re
import socket
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dehaze.errors import ImageError, OutputError
from dehaze.io.names import choose_fallbacks, choose_targets, claim_path, density_name, find_photos, holds, output_name
from dehaze.io.photo import read_photo


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


@pytest.mark.parametrize("pattern", ["in", "in/*"])
def test_what_systems_keep_for_themselves_is_passed_over(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    folders = ["@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", ".thumbnails", "__MACOSX", "System Volume Information"]
    files = ["Thumbs.db", "desktop.ini", "._IMG_1.jpg", ".DS_Store"]
    make(tmp_path, "in/IMG_1.jpg", *(f"in/{name}/a.jpg" for name in folders), *(f"in/{name}" for name in files))
    assert find_photos([pattern]) == ([Path("in/IMG_1.jpg")], [], [])


@pytest.mark.parametrize("pattern", ["in", "in/*", "in/**"])
def test_what_is_no_photograph_is_named(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "in/a.jpg", "in/DSC_0001.NEF", "in/b.mp4", "in/sub/c.dng", "in/sub/d.jp2", "in/e")
    found = find_photos([pattern])
    assert [path.as_posix() for path in found.photos] == ["in/a.jpg", "in/sub/d.jp2"]
    assert sorted(path.as_posix() for path in found.others) == ["in/DSC_0001.NEF", "in/b.mp4", "in/e", "in/sub/c.dng"]
    assert find_photos([pattern, "in/DSC_0001.NEF"]).others == [path for path in found.others if path.suffix != ".NEF"]


@pytest.mark.parametrize("pattern", [".", "**", "../in", "*"])
def test_results_below_the_photographs_are_passed_over(tmp_path, monkeypatch, pattern):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    make(Path(), "a.jpg", "sub/b.jpg", "out/a.jpg", "out/sub/b.jpg", "outer/c.jpg")
    found = find_photos([pattern], "out")
    assert sorted(path.name for path in found.photos) == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(found.results) == 2
    assert find_photos(["out"], "out").results == []  # named outright
    assert len(find_photos([pattern], ".").photos) == 5


@pytest.mark.parametrize("pattern", [".", "*.jpg"])
def test_what_is_no_file_is_passed_over_where_it_was_not_named(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "a.jpg")
    os.mkfifo("pipe.jpg")
    Path("link.jpg").symlink_to("pipe.jpg")
    Path("broken.jpg").symlink_to("gone.jpg")  # reported when it is read
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    assert find_photos([pattern]) == ([Path("a.jpg"), Path("broken.jpg")], [], [])
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
    assert find_photos([result]) == ([result], [], [])
    found = find_photos([tmp_path, result][::order])
    assert (len(found.photos), found.results, found.others) == (2, [], [])


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
        (["a.gif", "A.png/b.jpg"], ["a_dehazed.png", "A.png/b_dehazed.jpg"], ["a_2.png", "A.png/b.jpg"]),
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


@pytest.mark.parametrize(
    "photos, targets, fallbacks",
    [
        (["a.jpg"], ["a.jpg"], {"a.jpg": "a.png"}),
        (["a.jpg", "a.png"], ["a.jpg", "a.png"], {"a.jpg": "a_2.png"}),
        (["a.jpg", "A.webp"], ["a.jpg", "A.webp"], {"a.jpg": "a.png", "A.webp": "A_2.png"}),
        (["a.bmp", "a.tif"], ["a.bmp", "a.tif"], {"a.bmp": "a.png", "a.tif": "a_2.png"}),
        (["a.jpg", "a_2.jpg", "A.PNG"], ["a.jpg", "a_2.jpg", "A.PNG"], {"a.jpg": "a_2.png", "a_2.jpg": "a_2_2.png"}),
        (["é.jpg", "e\u0301.png"], ["é.jpg", "e\u0301.png"], {"é.jpg": "é_2.png"}),
        (["a.gif", "a.jpg"], ["a.png", "a.jpg"], {"a.jpg": "a_2.png"}),
    ],
    ids=str,
)
def test_no_fallback_shares_a_file(tmp_path, photos, targets, fallbacks):
    files = make(tmp_path / "in", *photos)
    chosen = choose_targets(files, str(tmp_path / "out"))
    assert names(chosen, tmp_path / "out") == targets
    assert {photo.name: path.name for photo, path in choose_fallbacks(chosen).items()} == fallbacks


def test_a_result_for_hdr_displays_is_png():
    photo = read_photo(np.zeros((2, 2, 3), np.uint16))
    hdr = replace(photo, metadata=replace(photo.metadata, marks={b"cICP": bytes([9, 16, 0, 1])}))
    assert [holds(Path(f"a{suffix}"), hdr) for suffix in (".png", ".tif")] == [True, False]


def test_no_fallback_is_an_input(tmp_path):
    files = make(tmp_path, "a.jpg", "b.jpg", "B_DEHAZED.png", "c.jpg")
    os.link(files[0], tmp_path / "c_dehazed.png")
    fallbacks = choose_fallbacks(choose_targets(files))
    assert names(fallbacks, tmp_path) == ["a_dehazed.png", "b_dehazed_2.png", "c_dehazed_2.png"]


@pytest.mark.parametrize(
    "suffix, dtype, channels, size, holding, chosen",
    [
        (".jpg", np.uint8, 3, (2, 2), True, True),
        (".jpg", np.uint16, 3, (2, 2), False, True),
        (".webp", np.uint16, 3, (2, 2), False, True),
        (".tif", np.uint16, 4, (2, 2), True, True),
        (".jpg", np.uint8, 4, (2, 2), False, False),
        (".bmp", np.uint8, 4, (2, 2), False, False),
        (".webp", np.uint8, 4, (2, 2), True, True),
        (".webp", np.uint8, 3, (1, 16_384), False, False),
        (".jpg", np.uint8, 3, (65_501, 1), False, False),
        (".png", np.uint16, 4, (1, 70_000), True, True),
    ],
)
def test_what_a_format_holds(suffix, dtype, channels, size, holding, chosen):
    photo = read_photo(np.zeros((*size, channels), dtype))
    assert holds(Path(f"a{suffix}"), photo) == holding
    assert output_name(f"a{suffix}", photo) == (f"a_dehazed{suffix}" if holding else "a_dehazed.png")
    assert output_name("a.png", photo, suffix) == (f"a_dehazed{suffix}" if chosen else "a_dehazed.png")


def test_an_input_is_no_target_in_any_case_or_unicode_form(tmp_path):
    for photos in (["a.png", "A_DEHAZED.PNG"], ["é.png", "e\u0301_dehazed.png"]):
        with pytest.raises(OutputError, match="is an input and would be overwritten"):
            choose_targets(make(tmp_path, *photos))


def test_an_output_in_a_format_that_cannot_be_written_is_refused_beforehand(tmp_path):
    for suffix in (".gif", ".heic", ".svg"):
        with pytest.raises(OutputError, match=rf"suffix '{suffix}' is unknown\. Use \.png"):
            choose_targets(make(tmp_path, "a.jpg"), f"out{suffix}")


@pytest.mark.parametrize("letter", ["x", "é", "霧"])
def test_results_of_long_names_fit_the_disk_and_are_found_again(tmp_path, letter):
    stem = letter * (248 // len(letter.encode()))
    photos = make(tmp_path, f"{stem}1.png", f"{stem}2.png", f"{stem}.jpg")
    results = [*choose_targets(photos).values(), tmp_path / density_name(photos[0].name)]
    for path in results:
        path.touch()  # raises OSError for a name of more than 255 bytes
    assert len(set(results)) == 4
    found = find_photos(tmp_path)
    assert (sorted(found.photos), sorted(found.results)) == (sorted(photos), sorted(results))


def test_a_result_of_a_name_with_a_line_break_is_found_again(tmp_path):
    photo, result = make(tmp_path, "a\nb.png", "a\nb_dehazed.png")
    assert find_photos(tmp_path)[:2] == ([photo], [result])


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
