"""16-bit colour files, checked against OpenCV's and tifffile's readers and writers."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from dehaze.errors import ImageError
from dehaze.io import deep
from dehaze.io.metadata import Metadata
from dehaze.io.photo import Photo, read_photo
from tests.dehaze.io.photographs import png_chunks

repeatable = settings(derandomize=True, deadline=None, max_examples=40)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MODES = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}


@st.composite
def samples16(draw, channels=(2, 3, 4)) -> np.ndarray:
    shape = draw(st.integers(1, 64)), draw(st.integers(1, 64)), draw(st.sampled_from(channels))
    if draw(st.booleans()):  # all 16 bits at random; the other kind has long runs and extremes, as hypothesis likes
        return np.random.default_rng(draw(st.integers(0, 99))).integers(0, 65536, shape, dtype=np.uint16)
    return draw(arrays(np.uint16, shape))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)


def samples_of(photo: Photo) -> np.ndarray:
    assert (photo.pixels.dtype, photo.mode[-3:]) == (np.uint16, ";16")
    colour = photo.pixels[..., :1] if photo.mode == "LA;16" else photo.pixels
    return colour if photo.alpha is None else np.dstack([colour, photo.alpha])


def png_file(*chunks: tuple[bytes, bytes]) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data


@repeatable
@given(samples16())
def test_png_round_trip_is_exact(samples):
    photo = read_photo(deep.encode_png(samples))
    assert photo.mode == MODES[samples.shape[2]]
    np.testing.assert_array_equal(samples_of(photo), samples)


@repeatable
@given(samples16(channels=(3, 4)))
def test_tiff_round_trip_is_exact(samples):
    photo = read_photo(deep.encode_tiff(samples, Metadata()))
    assert photo.mode == MODES[samples.shape[2]]
    np.testing.assert_array_equal(samples_of(photo), samples)


@pytest.mark.parametrize("channels", [3, 4])
def test_png_agrees_with_opencv_both_ways(channels):
    samples = noise(300, 37, channels)  # more rows than are encoded at once
    swapped = samples[..., [2, 1, 0, 3][:channels]]  # OpenCV keeps blue first
    theirs = cv2.imdecode(np.frombuffer(deep.encode_png(samples), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(theirs, swapped)
    np.testing.assert_array_equal(samples_of(read_photo(cv2.imencode(".png", swapped)[1].tobytes())), samples)


def test_grey_alpha_png_agrees_with_opencv():
    samples = noise(20, 37, 2)
    theirs = cv2.imdecode(np.frombuffer(deep.encode_png(samples), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(theirs, samples[..., [0, 0, 0, 1]])


def test_interlaced_png_is_exact():
    samples = noise(19, 23, 3)
    rows = b""
    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for x, y, dx, dy in adam7:
        rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", 23, 19, 16, 2, 0, 0, 1)
    data = png_file((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    np.testing.assert_array_equal(samples_of(read_photo(data)), samples)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "layout", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}, {"compression": "zlib", "predictor": True}], ids=str
)
@pytest.mark.parametrize("channels", [3, 4])
def test_reads_tiff_of_tifffile(byteorder, layout, channels):
    samples = noise(37, 53, channels)
    file = io.BytesIO()
    alpha = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(file, samples, byteorder=byteorder, photometric="rgb", metadata=None, **alpha, **layout)
    np.testing.assert_array_equal(samples_of(read_photo(file.getvalue())), samples)


@pytest.mark.parametrize("channels", [3, 4])
def test_tifffile_reads_our_tiff(channels):
    samples = noise(37, 53, channels)
    data = deep.encode_tiff(samples, Metadata(SRGB))
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), samples)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.pages[0].iccprofile == SRGB
        assert [int(kind) for kind in tiff.pages[0].extrasamples] == ([2] if channels == 4 else [])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_are_read(compression):
    samples, file = noise(3, 20, 30), io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", planarconfig="separate", compression=compression)
    np.testing.assert_array_equal(samples_of(read_photo(file.getvalue())), samples.transpose(1, 2, 0))


def test_png_carries_profile_and_exif_in_standard_chunks(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    photo = Photo(noise(4, 5, 3), None, "RGB;16", Metadata(SRGB, exif.tobytes()))
    chunks = png_chunks(photo.save(tmp_path / "photo.png").read_bytes())
    assert chunks[b"IHDR"] == [struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)]
    assert zlib.decompress(chunks[b"iCCP"][0].split(b"\0\0", 1)[1]) == SRGB
    assert b"Exif\0\0" + chunks[b"eXIf"][0] == exif.tobytes()
    assert len(zlib.decompress(b"".join(chunks[b"IDAT"]))) == 4 * (1 + 5 * 3 * 2)


@pytest.mark.parametrize("key, channels", [(struct.pack(">H", 7), 1), (struct.pack(">HHH", 7, 8, 65535), 3)])
def test_colour_declared_transparent_becomes_alpha(key, channels):
    samples = noise(6, 7, channels)
    samples[2, 3] = np.frombuffer(key, ">u2")
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", 7, 6, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    photo = read_photo(png_file((b"IHDR", header), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))
    opaque = np.full((6, 7), 65535)
    opaque[2, 3] = 0
    np.testing.assert_array_equal(photo.alpha, opaque)
    np.testing.assert_array_equal(photo.pixels[..., :channels], samples)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_cut_file_is_refused(tmp_path, suffix, share):
    data = Photo(noise(64, 64, 3), None, "RGB;16").save(tmp_path / f"photo{suffix}").read_bytes()
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_photo(data[: int(len(data) * share)])
