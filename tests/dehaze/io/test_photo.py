"""Photographs as tensors and as files."""

import errno
import os
import resource
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image, ImageCms

from dehaze.errors import DehazeError, ImageError, OutputError
from dehaze.io.metadata import Metadata
from dehaze.io.photo import Photo, read_photo
from tests.dehaze.io.photographs import fields

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RESOLUTION = (282, 283, 296)
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1, "LA;16": 2, "RGB;16": 3, "RGBA;16": 4}
GREY = ("L", "LA", "I;16", "LA;16")


def exif() -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "Maker"
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    tags[ExifTags.IFD.GPSInfo] = {1: "N", 2: (48.0, 8.0, 0.5)}
    return tags.tobytes()


def photo_of(mode: str, samples: np.ndarray, icc_profile: bytes | None = None, exif: bytes | None = None) -> Photo:
    colour = np.repeat(samples[..., :1], 3, axis=2) if mode in GREY else samples[..., :3]
    alpha = samples[..., -1] if CHANNELS[mode] in (2, 4) else None
    return Photo(colour, alpha, mode, Metadata(icc_profile, exif))


def noisy(mode: str, height: int = 24, width: int = 40, **metadata) -> Photo:
    dtype = np.uint16 if mode.endswith("16") else np.uint8
    samples = np.random.default_rng(0).integers(
        0, np.iinfo(dtype).max + 1, (height, width, CHANNELS[mode]), dtype=dtype
    )
    return photo_of(mode, samples, **metadata)


@st.composite
def photos(draw, modes=tuple(CHANNELS)) -> Photo:
    mode = draw(st.sampled_from(modes))
    shape = draw(st.integers(1, 64)), draw(st.integers(1, 64)), CHANNELS[mode]
    return photo_of(mode, draw(arrays(np.uint16 if mode.endswith("16") else np.uint8, shape)))


def assert_same(one: Photo, other: Photo, atol: int = 0) -> None:
    np.testing.assert_allclose(one.pixels.astype(int), other.pixels.astype(int), rtol=0, atol=atol)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None:
        np.testing.assert_array_equal(one.alpha, other.alpha)


@repeatable
@given(photos())
def test_tensor_and_back_is_exact(photo):
    tensor = photo.tensor()
    assert (tensor.shape, tensor.dtype) == ((1, 3, *photo.pixels.shape[:2]), torch.float32)
    assert tensor.min() >= 0 and tensor.max() <= 1
    back = photo.with_tensor(tensor)
    assert_same(back, photo)
    assert (back.mode, back.pixels.dtype) == (photo.mode, photo.pixels.dtype)


@pytest.mark.parametrize("mode", CHANNELS)
def test_new_colours_are_clipped_and_rounded_and_the_rest_stays(mode):
    photo = noisy(mode, 1, 4, icc_profile=SRGB, exif=exif())
    peak = np.iinfo(photo.pixels.dtype).max
    levels = torch.tensor([-0.5, 1.5, 100.4 / peak, 100.6 / peak], dtype=torch.float64)
    changed = photo.with_tensor(levels.expand(1, 3, 1, 4).requires_grad_())
    assert changed.pixels.tolist() == [[[0] * 3, [peak] * 3, [100] * 3, [101] * 3]]
    assert (changed.mode, changed.alpha is photo.alpha, changed.icc_profile, changed.exif) == (mode, True, SRGB, exif())


def test_grey_stays_grey_by_luma():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.2, 0.5, 0.9]]).T.reshape(1, 3, 1, 4)
    grey = noisy("L", 1, 4).with_tensor(colours).image()
    reference = Image.fromarray((colours[0].permute(1, 2, 0) * 255).round().byte().numpy()).convert("L")
    assert grey.mode == "L"
    np.testing.assert_allclose(np.asarray(grey, int), np.asarray(reference, int), atol=1)


def test_wrong_tensors_are_refused():
    photo = noisy("RGB")
    for shape in [(1, 3, 40, 24), (3, 24, 40), (2, 3, 24, 40), (1, 1, 24, 40)]:
        with pytest.raises(ValueError, match=r"\[1, 3, 24, 40\]"):
            photo.with_tensor(torch.zeros(shape))
    with pytest.raises(DehazeError, match="dtype float32"):
        photo.with_tensor(torch.full((1, 3, 24, 40), torch.nan))


@pytest.mark.parametrize("mode", CHANNELS)
def test_pillow_image_has_the_mode_and_the_labels(mode):
    photo = noisy(mode, icc_profile=SRGB, exif=exif())
    image = photo.image()
    assert image.mode == (mode if mode == "I;16" else mode.removesuffix(";16"))
    assert image.size == (40, 24)
    again = read_photo(image)
    assert (again.icc_profile, again.exif) == (SRGB, exif())
    if mode.endswith("16") and mode != "I;16":
        expected = np.rint(photo.pixels / 257)
        np.testing.assert_array_equal(again.pixels, expected)
    else:
        assert_same(again, photo)


@repeatable
@given(photos(), st.sampled_from([".png", ".tif", ".TIFF"]))
def test_lossless_round_trip(tmp_path_factory, photo, suffix):
    path = tmp_path_factory.mktemp("photo") / f"photo{suffix}"
    assert photo.save(str(path)) == path
    again = read_photo(path)
    assert_same(again, photo)
    assert again.mode == ("RGBA;16" if (photo.mode, suffix != ".png") == ("LA;16", True) else photo.mode)


@repeatable
@given(photos(modes=("L", "RGB", "I;16", "RGB;16")))
def test_bmp_round_trip_has_8_bits(tmp_path_factory, photo):
    again = read_photo(photo.save(tmp_path_factory.mktemp("photo") / "photo.bmp"))
    peak = np.iinfo(photo.pixels.dtype).max
    np.testing.assert_array_equal(again.pixels, np.rint(photo.pixels / (peak / 255)))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".JPG"])
@pytest.mark.parametrize("mode", CHANNELS)
def test_lossy_round_trip_is_close(tmp_path, mode, suffix):
    ramp = np.add.outer(np.arange(48), np.arange(64))[..., None] + np.arange(CHANNELS[mode]) * 30
    photo = photo_of(mode, (ramp * 257).astype(np.uint16) if mode.endswith("16") else ramp.astype(np.uint8))
    if photo.alpha is not None and suffix != ".webp":
        with pytest.raises(OutputError, match=r"transparency, and JPEG has none\. Use \.png"):
            photo.save(tmp_path / f"photo{suffix}")
        assert not list(tmp_path.iterdir())
        return
    again = read_photo(photo.save(tmp_path / f"photo{suffix}"))
    assert again.pixels.dtype == np.uint8
    np.testing.assert_allclose(
        again.pixels.astype(int), ramp[..., [0, 1, 2] if CHANNELS[mode] > 2 else [0] * 3], atol=8
    )
    if photo.alpha is not None:
        np.testing.assert_array_equal(again.alpha, ramp[..., -1])


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    image = Image.open(noisy("RGB").save(tmp_path / "photo.jpg"))
    assert [(across, down) for _, across, down, _ in image.layer] == [(1, 1)] * 3


@pytest.mark.parametrize(
    "mode, suffix",
    [*product(CHANNELS, [".png", ".tif", ".webp"]), *product(["L", "RGB", "I;16", "RGB;16"], [".jpg"])],
)
def test_profile_and_exif_go_along(tmp_path, mode, suffix):
    photo = noisy(mode, icc_profile=SRGB, exif=exif())
    path = photo.save(tmp_path / f"photo{suffix}")
    again = read_photo(path)
    assert again.icc_profile == SRGB
    assert {key: value for key, value in fields(again.exif).items() if key[1] not in RESOLUTION} == fields(exif())
    plain = read_photo(noisy(mode).save(path))
    assert (plain.icc_profile, plain.exif) == (None, None)


def test_webp_keeps_the_colours_under_full_transparency(tmp_path):
    photo = photo_of("RGBA", np.full((16, 16, 4), [200, 100, 50, 0], np.uint8))
    np.testing.assert_allclose(read_photo(photo.save(tmp_path / "photo.webp")).pixels.astype(int), photo.pixels, atol=8)


def test_unknown_suffix_lists_the_known(tmp_path):
    for name in ("photo", "photo.gif", "photo.heic"):
        with pytest.raises(OutputError, match=r"\.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff, \.bmp"):
            noisy("RGB").save(tmp_path / name)


def test_beyond_the_format_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"as WEBP: .*Use \.png"):
        noisy("L", 1, 16_384).save(tmp_path / "photo.webp")
    assert not list(tmp_path.iterdir())


def test_bmp_refuses_transparency(tmp_path):
    with pytest.raises(OutputError, match="BMP has none"):
        noisy("RGBA").save(tmp_path / "photo.bmp")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "LA;16", "RGBA;16"])
@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_an_alpha_that_is_opaque_throughout_is_no_transparency(tmp_path, mode, suffix):
    photo = noisy(mode)
    opaque = replace(photo, alpha=np.full_like(photo.alpha, np.iinfo(photo.alpha.dtype).max))
    again = read_photo(opaque.save(tmp_path / f"photo{suffix}"))
    assert again.alpha is None
    assert np.abs(again.pixels / 255 - opaque.pixels / np.iinfo(opaque.pixels.dtype).max).mean() < 0.05
    assert read_photo(opaque.save(tmp_path / "photo.png")).mode == mode


def test_saving_replaces_a_file_whole_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(b"old")
    noisy("RGB").save(path)
    assert_same(read_photo(path), noisy("RGB"))
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_the_old_file_and_no_part_of_the_new(tmp_path):
    path = tmp_path / "photo.bmp"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the kernel stops the write half-way
    try:
        with pytest.raises(OutputError, match="free space"):
            noisy("RGB").save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("missing/photo.png", "file/photo.png", "folder.png"):
        with pytest.raises(OutputError, match="Check that its folder exists"):
            noisy("RGB").save(tmp_path / name)

    def refuse(path, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)  # a read-only folder does not stop root
    with pytest.raises(OutputError, match=r"Permission denied\. Check that its folder exists, its permissions"):
        noisy("RGB").save(tmp_path / "photo.png")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.png"]


def test_path_bytes_image_and_array_read_alike(tmp_path):
    photo = noisy("RGB", icc_profile=SRGB, exif=exif())
    path = photo.save(tmp_path / "photo.png")
    for source in (path, str(path), path.read_bytes(), Image.open(path), photo.pixels):
        assert_same(read_photo(source), photo)


def test_what_is_no_photograph_is_refused(tmp_path):
    empty, text, cut = tmp_path / "empty.jpg", tmp_path / "text.jpg", tmp_path / "cut.jpg"
    empty.touch()
    text.write_text("This is not a photograph. " * 9)
    noisy("RGB").save(cut)
    cut.write_bytes(cut.read_bytes()[:-400])
    for source, message in [
        (empty, r"empty\.jpg is empty\. Copy or download it again"),
        (b"", "The data is empty"),
        (text, r"text\.jpg is not an image .*whatever its name says, .*Give a whole"),
        (cut, r"cut\.jpg is damaged or cut short .*Copy or download"),
        (tmp_path, r"is a folder, not a photograph\. Give the files in it"),
        (tmp_path / "missing.jpg", r"missing\.jpg does not exist\. Check its name"),
        (empty / "photo.jpg", "does not exist"),
        ("bad\0name.jpg", "does not exist"),
        ("x" * 5000, "cannot be opened: .*name too long"),
        (None, "from a NoneType. Give a path, bytes, a Pillow image or an array"),
        ([1, 2], "from a list"),
    ]:
        with pytest.raises(ImageError, match=message):
            read_photo(source)


def test_visitors_see_neither_folders_nor_settings(tmp_path):
    path = noisy("RGB").save(tmp_path / "photo.png")
    with pytest.raises(ImageError) as caught:
        read_photo(path, max_megapixels=0.0001)
    assert str(caught.value).startswith(f"{path} has ") and str(caught.value).endswith("Or raise max_megapixels.")
    assert caught.value.for_visitors() == (
        "photo.png has 0.001 megapixels (40×24), and the limit is 0.0001. Make it smaller."
    )
    assert caught.value.for_visitors("mine.png").startswith("mine.png has ")


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = noisy("RGB").save(tmp_path / "photo.png")

    def refuse(path, flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)  # file permissions do not stop root
    with pytest.raises(ImageError, match=r"photo\.png cannot be opened: Permission denied\. Check its name and perm"):
        read_photo(path)


def test_heic_without_plugin_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    header = b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf" + b"\0" * 99
    for data in (header, header.replace(b"ftypmif1", b"ftypheic")):
        with pytest.raises(ImageError, match=r"HEIC .*Convert it to JPEG\. .*`pip install pillow-heif`"):
            read_photo(data)


def test_closed_pillow_image_is_refused(tmp_path):
    image = Image.open(noisy("RGB").save(tmp_path / "photo.png"))
    image.close()
    with pytest.raises(ImageError, match="The image"):
        read_photo(image)
