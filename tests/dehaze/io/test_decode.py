"""Reading photographs of every kind, against Pillow's own conversions, and what is refused."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image, ImageCms, ImageOps

from dehaze.errors import ImageError
from dehaze.io.metadata import Metadata
from dehaze.io.photo import Photo, read_photo

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
sizes = st.tuples(st.integers(1, 64), st.integers(1, 64))
# What each of Pillow's 8-bit modes comes out as.
MODES = dict.fromkeys(("RGB", "RGBX", "P", "CMYK", "YCbCr", "HSV", "LAB"), "RGB")
MODES |= {"RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA", "1": "L", "L": "L", "LA": "LA", "La": "LA"}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION = ExifTags.Base.Orientation


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def encoded(image: Image.Image, format_name: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def huge_png(width: int, height: int) -> bytes:
    """Give a PNG file that promises a size, and holds no pixel."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


@repeatable
@given(sizes, st.sampled_from(list(MODES)))
def test_every_mode_becomes_grey_or_colour_of_8_bits(size, mode):
    # Pillow converts most modes by way of another one only.
    step = {"La": "LA", "RGBa": "RGBA", "RGBA": "RGBA", "LA": "RGBA"}.get(mode, "RGB")
    image = Image.fromarray(noise(size[1], size[0], 4)).convert(step).convert(mode)
    photo = read_photo(image)
    assert photo.mode == MODES[mode]
    whole = image.convert("LA") if mode == "La" else image
    expected = np.asarray(whole.convert("RGB" if photo.alpha is None else "RGBA"))
    np.testing.assert_array_equal(photo.pixels, expected[..., :3])
    if photo.alpha is not None:
        np.testing.assert_array_equal(photo.alpha, expected[..., 3])
    assert photo.image().mode == photo.mode


@repeatable
@given(arrays(np.uint16, sizes), st.sampled_from(["I;16", "I;16B", "I", "PNG", "TIFF", "PGM"]))
def test_16_bit_grey_is_exact(values, kind):
    image = Image.fromarray(values)
    if kind == "I;16B":
        image = Image.frombytes(kind, image.size, values.astype(">u2").tobytes())
    if kind == "I":
        image = Image.fromarray(values.astype(np.int32))
    photo = read_photo(image if kind.startswith("I") else encoded(image, "PPM" if kind == "PGM" else kind))
    assert photo.mode == "I;16"
    np.testing.assert_array_equal(photo.pixels, np.dstack([values] * 3))


@pytest.mark.parametrize("name", [b"IHDR", b"tRNS"])
def test_png_with_a_wrong_checksum_is_called_damaged(name):
    data = bytearray(encoded(Image.new("L", (4, 3)), "PNG", transparency=7))
    at = data.index(name)
    data[at + 4 + int.from_bytes(data[at - 4 : at], "big")] ^= 1
    with pytest.raises(ImageError, match=r"is damaged or cut short \(a chunk before its pixels is broken\)"):
        read_photo(bytes(data))


@pytest.mark.parametrize(
    "size, limit, said", [((8, 8), 60e-6, "0.0001"), ((1001, 1000), 1, "1.001"), ((1, 11), 10.5e-6, "0.000011")]
)
def test_the_size_is_said_so_that_it_exceeds_the_limit(size, limit, said):
    with pytest.raises(ImageError, match=rf"has {said} megapixels"):
        read_photo(Image.new("1", size), max_megapixels=limit)


def test_32_bit_numbers_beyond_16_bits_are_refused():
    for value in (-1, 65536):
        with pytest.raises(ImageError, match="Rescale it to 16 bits"):
            read_photo(Image.new("I", (2, 2), value))


def test_float_images_are_taken_in_the_unit_range():
    photo = read_photo(encoded(Image.fromarray(np.array([[0, 0.25, 1]], np.float32)), "TIFF"))
    assert photo.mode == "I;16"
    assert photo.pixels[0, :, 0].tolist() == [0, 16384, 65535]
    for value in (-0.1, 1.5, 255, float("nan")):
        with pytest.raises(ImageError, match=r"Rescale them to \[0, 1\]"):
            read_photo(Image.new("F", (2, 2), value))


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 256))])
def test_palette_with_transparency_becomes_rgba(transparency):
    image = Image.fromarray(noise(20, 30) % 8).convert("P")
    image.putpalette(noise(768).tolist())
    data = encoded(image, "PNG", transparency=transparency)
    photo = read_photo(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert photo.mode == "RGBA"
    assert len(np.unique(photo.alpha)) > 1
    np.testing.assert_array_equal(np.dstack([photo.pixels, photo.alpha]), expected)


@pytest.mark.parametrize("mode, key", [("L", 7), ("RGB", (7, 8, 9))])
def test_colour_declared_transparent_becomes_alpha(mode, key):
    image = Image.new(mode, (4, 3), 200 if mode == "L" else (200, 201, 202))
    image.putpixel((1, 2), key)
    photo = read_photo(encoded(image, "PNG", transparency=key))
    assert photo.mode == mode + "A"
    assert np.argwhere(photo.alpha == 0).tolist() == [[2, 1]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("key", [0, 1])
def test_grey_declared_transparent_becomes_alpha_at_every_depth(bits, key):
    count = 2**bits  # one pixel of each grey
    digits = [number >> bit & 1 for number in range(count) for bit in reversed(range(bits))]
    rows = b"\0" + np.packbits(digits).tobytes()
    header = struct.pack(">IIBBBBB", count, 1, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", key)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    photo = read_photo(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    assert photo.pixels[0, :, 0].tolist() == [number * 255 // (count - 1) for number in range(count)]
    assert np.flatnonzero(photo.alpha == 0).tolist() == [key]


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "TIFF", "WEBP", "MPO"])
def test_animation_gives_its_first_frame(format_name):
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("#c04020", "#2040c0", "#20c040")]
    photo = read_photo(encoded(frames[0], format_name, save_all=True, append_images=frames[1:]))
    assert photo.pixels.shape == (8, 16, 3)
    np.testing.assert_allclose(photo.pixels[4, 8], [0xC0, 0x40, 0x20], atol=6)


@repeatable
@given(sizes, st.integers(1, 8), st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP"]))
def test_orientation_is_applied_as_pillow_does(size, orientation, format_name):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(Image.fromarray(noise(size[1], size[0], 3)), format_name, exif=exif)
    photo = read_photo(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(photo.pixels, np.asarray(expected.convert("RGB")))
    assert exif_of(photo).get(ORIENTATION, 1) == 1
    np.testing.assert_array_equal(read_photo(Image.open(io.BytesIO(data))).pixels, photo.pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_16_bit_colour(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    samples = noise(5, 9, 4, dtype=np.uint16)
    coarse = encoded(Image.fromarray((samples >> 8).astype(np.uint8)), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(coarse))))
    whole = Photo(samples[..., :3], samples[..., 3], "RGBA;16", Metadata(exif=exif.tobytes()))
    turned = io.BytesIO()
    extra = [(ORIENTATION, 3, 1, orientation, True)]
    tifffile.imwrite(turned, samples, photometric="rgb", extrasamples=["unassalpha"], metadata=None, extratags=extra)
    for data in (whole.save(tmp_path / "photo.png").read_bytes(), turned.getvalue()):
        photo = read_photo(data)
        np.testing.assert_array_equal(np.dstack([photo.pixels, photo.alpha]) >> 8, expected)
        assert np.isin(photo.pixels, samples).all()


def exif_of(photo: Photo) -> Image.Exif:
    exif = Image.Exif()
    exif.load(photo.exif or b"")
    return exif


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.XResolution] = 72.0
    exif[ORIENTATION] = 6
    exif[ExifTags.Base.ImageWidth] = 1234  # of the old file: were it kept, a TIFF written with it would be unreadable
    exif[ExifTags.Base.StripOffsets] = 99
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
        ExifTags.Base.ExposureTime: 0.008,
        ExifTags.Base.ExifImageWidth: 30,
        ExifTags.Base.ExifImageHeight: 20,
        ExifTags.Base.MakerNote: b"note",
        ExifTags.IFD.Interop: {1: "R98"},
    }
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (48.0, 8.0, 0.5)}
    return exif


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_exif_keeps_what_describes_the_photograph(format_name):
    photo = read_photo(encoded(Image.fromarray(noise(20, 30, 3)), format_name, exif=camera_exif().tobytes()))
    exif = exif_of(photo)
    details, place = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    kept = {ExifTags.Base.Make, ExifTags.Base.XResolution, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
    assert set(exif) == {*kept, ORIENTATION, ExifTags.Base.ImageWidth}
    assert (exif[ORIENTATION], exif[ExifTags.Base.ImageWidth]) == (1, 20)
    assert exif[ExifTags.Base.Make] == "Maker"
    assert details[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
    assert details[ExifTags.Base.ExposureTime] == pytest.approx(0.008)
    assert details[ExifTags.Base.MakerNote] == b"note"
    assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (20, 30)  # turned
    assert exif.get_ifd(ExifTags.IFD.Interop) == {1: "R98"}
    assert place == {1: "N", 2: (48.0, 8.0, 0.5)}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01"])
def test_damaged_exif_does_not_cost_the_photograph(exif):
    photo = read_photo(encoded(Image.new("RGB", (3, 2), "red"), "PNG", exif=exif))
    assert (photo.pixels.shape, photo.exif) == ((2, 3, 3), None)


def cmyk_profile() -> bytes:
    """Build an ICC profile whose inks are chosen so that no formula could guess them: cyan prints green."""
    white, black = (255, 128, 128), (50, 128, 128)  # printed black is a dark grey
    paper_and_inks = [white] * 16
    for inks in range(16):  # first channel varies slowest
        cyan, _, _, key = inks >> 3 & 1, inks >> 2 & 1, inks >> 1 & 1, inks & 1
        paper_and_inks[inks] = black if key else (128, 78, 168) if cyan else white
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + bytes(range(256)) * 4
    table += bytes(np.array(paper_and_inks, np.uint8).ravel()) + bytes(range(256)) * 3
    white_point = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text\0\0\0\0test\0\0\0\0"
    tags, body = b"", b""
    table += b"\0" * (-len(table) % 4)
    for name, data in [(b"A2B0", table), (b"A2B1", table), (b"wtpt", white_point), (b"cprt", text)]:
        tags += name + struct.pack(">II", 128 + 4 + 48 + len(body), len(data))
        body += data
    size = 128 + 4 + 48 + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, b"scnr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 4) + tags + body


def test_cmyk_follows_its_profile_into_srgb():
    image = Image.new("CMYK", (16, 8), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (8, 0, 16, 8))
    photo = read_photo(encoded(image, "TIFF", icc_profile=cmyk_profile()))
    assert photo.mode == "RGB"
    red, green, blue = photo.pixels[4, 2].astype(int)
    assert green > max(red, blue) + 50  # Pillow's formula without the profile: 0, 255, 255
    assert photo.pixels[4, 12].max() < 12  # black point compensation: the darkest ink becomes black
    assert photo.icc_profile is None


def test_profile_of_other_colours_is_left_behind():
    converted = Image.new("CMYK", (2, 2)).convert("RGB")
    for profile, kept in [(cmyk_profile(), None), (b"rubbish", None), (SRGB, SRGB)]:
        converted.info["icc_profile"] = profile
        assert read_photo(converted).icc_profile == kept


@pytest.mark.parametrize(
    "profile", [None, b"rubbish", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
)
def test_cmyk_without_usable_profile_is_converted_plainly(profile):
    image = Image.new("CMYK", (8, 8), (255, 40, 0, 10))
    options = {"icc_profile": profile} if profile else {}
    photo = read_photo(encoded(image, "TIFF", **options))
    np.testing.assert_array_equal(photo.pixels, np.asarray(image.convert("RGB")))


def test_inverted_cmyk_of_adobe_jpeg_is_not_a_negative():
    image = Image.new("CMYK", (16, 16), (0, 0, 0, 0))  # white paper
    data = encoded(image, "JPEG", quality=95)
    assert b"Adobe" in data[:64]  # Pillow marks and inverts it as Adobe does
    assert read_photo(data).pixels.min() > 250


def test_over_limit_is_refused_from_the_header_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"100\.0 megapixels \(10000×10000\), and the limit is 60\. "):
            read_photo(huge_png(10_000, 10_000))
        with pytest.raises(ImageError, match=r"400000\.0 megapixels"):
            read_photo(huge_png(10**6, 400_000))


def test_limit_can_be_raised_and_lowered(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(ImageError, match="damaged or cut short"):  # the limit passed, beyond Pillow's own guard
        read_photo(huge_png(200_000, 1000), max_megapixels=200)
    for source in (noise(11, 100), Image.new("L", (100, 11)), encoded(Image.new("L", (100, 11)), "PNG")):
        assert read_photo(source, max_megapixels=0.0011).mode == "L"
        with pytest.raises(ImageError, match=r"0\.001"):
            read_photo(source, max_megapixels=0.001)
    assert Image.MAX_IMAGE_PIXELS == 10_000  # others' use of Pillow stays guarded


SAMPLE = Image.fromarray(noise(24, 40, 3))
FILES = [encoded(SAMPLE, name) for name in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000")]


@pytest.mark.filterwarnings("ignore")
@settings(repeatable, max_examples=200)
@given(st.sampled_from(FILES), st.integers(0, 10**6), st.integers(0, 255), st.booleans())
@example(FILES[1], 30, 0, True)
def test_damaged_files_are_read_or_refused_but_never_crash(data, position, byte, cut):
    position %= len(data)
    damaged = data[:position] if cut else data[:position] + bytes([byte]) + data[position + 1 :]
    try:
        photo = read_photo(damaged, max_megapixels=1)
    except ImageError as error:
        assert str(error).startswith("The data ")
    else:
        assert photo.pixels.dtype in (np.uint8, np.uint16)


@repeatable
@given(st.data(), st.sampled_from([(), (3,), (4,)]), st.sampled_from(["u1", "<u2", ">u2", "f2", "f4", "f8"]))
def test_arrays_of_every_kind(data, channels, dtype):
    shape = data.draw(sizes) + channels
    unit = {"elements": st.floats(0, 1, width=min(8 * int(dtype[-1]), 64))} if dtype[0] == "f" else {}
    array = data.draw(arrays(np.dtype(dtype), shape, **unit))
    photo = read_photo(array)
    deep = ";16" if dtype[-2:] != "u1" else ""
    assert (
        photo.mode == {"": "I;16" if deep else "L", "3": "RGB" + deep, "4": "RGBA" + deep}["".join(map(str, channels))]
    )
    expected = np.rint(array.astype(np.float64) * 65535) if dtype[0] == "f" else array.astype(int)
    expected = expected if channels else np.dstack([expected] * 3)
    atol = 1 if dtype[0] == "f" else 0  # halves may round either way in float32
    np.testing.assert_allclose(photo.pixels.astype(int), expected[..., :3], rtol=0, atol=atol)
    if photo.alpha is not None:
        np.testing.assert_allclose(photo.alpha.astype(int), expected[..., 3], rtol=0, atol=atol)


@pytest.mark.parametrize("shape", [(), (5,), (3, 8, 9), (8, 9, 1), (8, 9, 2), (8, 9, 5), (1, 8, 9, 3)])
def test_array_of_another_shape_is_refused(shape):
    with pytest.raises(ImageError, match="H×W×3"):
        read_photo(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "empty", [np.zeros((0, 5)), np.zeros((5, 0, 3)), Image.new("I", (0, 5)), Image.new("L", (5, 0))]
)
def test_image_without_pixels_is_refused(empty):
    with pytest.raises(ImageError, match="has no pixels"):
        read_photo(empty)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint32, np.complex64, object])
def test_array_of_another_type_is_refused(dtype):
    with pytest.raises(ImageError, match="uint8, uint16, or float"):
        read_photo(np.zeros((2, 2, 3), dtype))


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, np.nan, np.inf])
def test_float_array_beyond_the_unit_range_is_refused(value):
    array = np.full((2, 2, 3), 0.5)
    array[0, 0, 0] = value
    with pytest.raises(ImageError, match=r"Rescale them to \[0, 1\]"):
        read_photo(array)


def test_a_jpeg_file_of_countless_scans_is_refused():
    """Each scan makes the decoder go over all pixels again."""
    file = io.BytesIO()
    Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 50).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    assert read_photo(data).pixels.shape == (64, 64, 3)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="scans, and the limit is"):
        read_photo(data[:-2] + data[last:-2] * 60 + data[-2:])
