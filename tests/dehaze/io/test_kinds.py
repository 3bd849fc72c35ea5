"""Photographs of every kind that people have, read as other programs read them, or refused by name."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from dehaze.errors import ImageError, OutputError
from dehaze.io.photo import read_photo, read_photo_header
from tests.dehaze.io.photographs import encoded, fields, jpeg_with, magick, png_chunks, png_with, program

Y, X = np.mgrid[0:45, 0:61]
COLOUR = np.stack([X * 1050, Y * 1400, (X + Y) * 600], axis=-1).astype(np.uint16)
ALPHA = (X * 1070).clip(0, 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Write a 16-bit photograph for ImageMagick to convert, and one with alpha."""
    folder = tmp_path_factory.mktemp("sources")
    tifffile.imwrite(folder / "colour.tif", COLOUR, photometric="rgb")
    with_alpha = np.dstack([COLOUR, ALPHA])
    tifffile.imwrite(folder / "alpha.tif", with_alpha, photometric="rgb", extrasamples=["unassalpha"])
    return folder


def tiff(samples: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **options)
    return file.getvalue()


def samples_of(data: bytes | Path) -> np.ndarray:
    """Return colours and alpha as 16 bits."""
    photo = read_photo(data)
    whole = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    return whole.astype(np.uint16) * (257 if whole.dtype == np.uint8 else 1)


def by_magick(path: Path, channels: int) -> np.ndarray:
    data = magick(f"{path}[0]", "-auto-orient", "-colorspace", "sRGB", "-depth", "16", "RGBA:-")
    return np.frombuffer(data, "<u2").reshape(*read_photo(path).pixels.shape[:2], 4)[..., :channels]


KINDS = {
    **{f"grey of {bits} bits": f"-colorspace Gray -depth {bits}" for bits in (1, 2, 4, 8, 9, 10, 12, 14, 16)},
    **{f"RGB of {bits} bits": f"-type TrueColor -depth {bits}" for bits in (4, 8, 10, 12, 14, 16)},
    "12 bits, LZW": "-depth 12 -compress LZW",
    "12 bits, Deflate": "-depth 12 -compress Zip",
    "12 bits, PackBits": "-depth 12 -compress RLE",
    "12 bits, tiles": "-depth 12 -compress Zip -define tiff:tile-geometry=32x16",
    "16 bits, predictor": "-depth 16 -compress LZW -define tiff:predictor=2",
    "planes of 8 bits": "-depth 8 -interlace plane",
    "planes of 16 bits": "-depth 16 -interlace plane -compress LZW",
    "grey min-is-white of 8 bits": "-colorspace Gray -depth 8 -define quantum:polarity=min-is-white",
    "grey min-is-white of 16 bits": "-colorspace Gray -depth 16 -define quantum:polarity=min-is-white",
    "half floats": "-depth 16 -define quantum:format=floating-point -compress Zip",
    "floats": "-depth 32 -define quantum:format=floating-point -compress Zip",
    "double floats": "-depth 64 -define quantum:format=floating-point -compress Zip",
    "grey floats": "-colorspace Gray -depth 32 -define quantum:format=floating-point -compress Zip",
    "CMYK": "-colorspace CMYK -depth 8",
    "palette": "-colors 16 -type Palette",
}


@pytest.mark.parametrize("endian", ["LSB", "MSB"])
@pytest.mark.parametrize("kind", KINDS)
def test_tiff_is_read_as_imagemagick_reads_it(tmp_path, sources, kind, endian):
    path = tmp_path / "photo.tif"
    magick(sources / "colour.tif", *KINDS[kind].split(), "-endian", endian, path)
    assert read_photo_header(path)[:2] == (61, 45)
    atol = 257 if kind in ("CMYK", "palette") else 1  # these are converted to 8 bits
    np.testing.assert_allclose(samples_of(path).astype(int), by_magick(path, 3), atol=atol)


@pytest.mark.parametrize("endian", ["LSB", "MSB"])
@pytest.mark.parametrize("kind", ["associated", "unassociated"])
@pytest.mark.parametrize("depth", [8, 12, 16])
def test_alpha_of_tiff_is_read_as_imagemagick_reads_it(tmp_path, sources, kind, depth, endian):
    path = tmp_path / "photo.tif"
    magick(sources / "alpha.tif", "-define", f"tiff:alpha={kind}", "-depth", depth, "-endian", endian, path)
    found, expected = samples_of(path).astype(int), by_magick(path, 4)
    seen = found[..., 3] > 4000  # colours of what is hardly there are rounded away
    np.testing.assert_allclose(found[..., 3], expected[..., 3], atol=1)
    np.testing.assert_allclose(found[seen], expected[seen], atol=260 if depth == 8 else 40)


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_min_is_white_is_no_negative(dtype, byteorder):
    grey = (COLOUR[..., 0] // (257 if dtype == np.uint8 else 1)).astype(dtype)
    for white in (np.iinfo(dtype).max - grey, grey):
        photometric = "miniswhite" if white is not grey else "minisblack"
        photo = read_photo(tiff(white, photometric=photometric, byteorder=byteorder))
        np.testing.assert_array_equal(photo.pixels[..., 0], grey)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("white", [False, True])
def test_min_is_white_of_other_depths_follows_the_tag(tmp_path, sources, bits, white):
    path = tmp_path / "photo.tif"
    magick(sources / "colour.tif", "-colorspace", "Gray", "-depth", bits, path)
    grey = samples_of(path)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8] = 0 if white else 1
    np.testing.assert_array_equal(samples_of(bytes(data)), 65535 - grey if white else grey)


@pytest.mark.parametrize(
    "value, held",
    [
        *((value, f"float values from .*{value:g}") for value in (-0.5, 1.5, 255.0)),
        (np.nan, r"values that are not numbers \(NaN\)"),
    ],
)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_floats_beyond_the_unit_range_are_refused_by_name(value, held, channels):
    samples = np.full((4, 5, *channels), 0.5, np.float32)
    samples[0, 0] = value
    with pytest.raises(ImageError, match=rf"holds {held}.*Rescale them to \[0, 1\]"):
        read_photo(tiff(samples, photometric="rgb" if channels else "minisblack"))


def test_tiff_of_a_kind_nobody_reads_is_refused_by_name():
    with pytest.raises(ImageError, match=r"a TIFF file of a kind that is not read .*Save it as RGB or grey"):
        read_photo(tiff(np.zeros((4, 5), np.complex64), photometric="minisblack"))


def test_further_channels_are_named():
    kinds = ["unassalpha", "unspecified"]
    samples = np.zeros((7, 9, 5), np.uint16)
    photo = read_photo(tiff(samples, photometric="rgb", planarconfig="contig", extrasamples=kinds))
    assert (photo.mode, photo.notes) == ("RGBA;16", ("It holds further channels, which are left out.",))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lab_becomes_srgb(dtype):
    """Values of sRGB's grey, and of a colour, by Lindbloom."""
    scale = 1 if dtype == np.uint8 else 256
    lightness = 255 if dtype == np.uint8 else 65535
    signed = np.array([[[53.585, 0, 0], [60, 20, -30]]]) * [lightness / 100, scale, scale]
    samples = np.rint(signed).astype(np.int32).astype(dtype)
    data = tiff(np.tile(samples, (8, 8, 1)), photometric="cielab")
    np.testing.assert_allclose(samples_of(data)[0, :2] / 257, [[128] * 3, [159.5, 133.4, 197.9]], atol=1.5)


def test_16_bit_cmyk_follows_its_formula_and_says_so():
    photo = read_photo(tiff(np.full((4, 5, 4), [65535, 0, 0, 0], np.uint16), photometric="separated"))
    assert photo.pixels[0, 0].tolist() == [0, 255, 255]
    assert photo.notes == ("Its colours were converted from CMYK at 8 bits.",)


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
@pytest.mark.parametrize("suffix", ["ppm", "pgm", "png", "jp2"])
def test_other_deep_files(tmp_path, sources, suffix, depth):
    path = tmp_path / f"photo.{suffix}"
    grey = ["-colorspace", "Gray"] if suffix == "pgm" else []
    magick(sources / "colour.tif", *grey, "-depth", depth, "-quality", "100", path)
    photo = read_photo(path)
    reduced = suffix == "jp2" and depth > 8
    assert photo.pixels.dtype == (np.uint8 if depth == 8 or reduced else np.uint16)
    assert photo.notes == ((f"It has {depth} bits a sample, of which 8 were read.",) if reduced else ())
    np.testing.assert_allclose(samples_of(path).astype(int), by_magick(path, 3), atol=400 if suffix == "jp2" else 1)


@pytest.mark.parametrize("top", [255, 1000, 65535])
def test_ppm_of_digits_keeps_its_depth(top):
    numbers = COLOUR // (65535 // top)
    data = b"P3\n61 45\n%d\n" % top + " ".join(map(str, numbers.ravel())).encode()
    photo = read_photo(data)
    scale = 255 if top == 255 else 65535
    assert photo.pixels.dtype == (np.uint8 if top == 255 else np.uint16)
    np.testing.assert_array_equal(photo.pixels, np.rint(numbers * (scale / top)))
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_photo(data[:-200])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("byteorder", "<>")
def test_big_tiff_is_read_without_warnings(byteorder):
    samples = COLOUR.astype(np.uint8)
    np.testing.assert_array_equal(
        read_photo(tiff(samples, photometric="rgb", bigtiff=True, byteorder=byteorder)).pixels, samples
    )


@pytest.mark.parametrize("compression", [50001, 34712, 34887, 50002])  # WebP, JPEG 2000, LERC, JPEG XL
def test_a_compression_that_is_not_read_is_named(compression, capfd):
    data = bytearray(tiff(COLOUR.astype(np.uint8), photometric="rgb", byteorder="<"))
    at = data.index(struct.pack("<HHI", 259, 3, 1))
    struct.pack_into("<H", data, at + 8, compression)
    with pytest.raises(ImageError, match=f"a kind that is not read .*compression {compression}"):
        read_photo(bytes(data))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_signed_samples_are_refused(bits, channels):
    data = tiff(np.ones((4, 5, *channels), f"i{bits // 8}"), photometric="rgb" if channels else "minisblack")
    with pytest.raises(ImageError, match=f"holds signed samples of {bits} bits, .*Save it as .* unsigned"):
        read_photo(data)


# Camera raw


def raw_file(thumbnail: int = 80, **tags: object) -> bytes:
    """Give a preview in the first directory, and a mosaic of 320×240 below it, as NEF and DNG files have."""
    file = io.BytesIO()
    mosaic = (COLOUR[..., 1].mean() + np.zeros((240, 320))).astype(np.uint16)
    with tifffile.TiffWriter(file) as writer:
        preview = np.full((60, thumbnail, 3), 99, np.uint8)
        about = [(271, 2, 0, "NIKON CORPORATION", True), (272, 2, 0, "NIKON D7200", True), *tags.get("extra", [])]
        writer.write(preview, photometric="rgb", subifds=1, subfiletype=1, metadata=None, extratags=about)
        pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes([0, 1, 1, 2]), True)]
        kind = tags.get("photometric", 32803)
        mosaic = np.dstack([mosaic] * 3) if kind == 34892 else mosaic
        writer.write(mosaic, photometric=kind, metadata=None, extratags=pattern)
    return file.getvalue()


DNG = [(50706, 1, 4, bytes([1, 4, 0, 0]), True), (50708, 2, 0, "Maker Camera", True)]
RAW = {
    "NEF": raw_file(),
    "DNG": raw_file(extra=DNG),
    "linear DNG": raw_file(extra=DNG, photometric=34892),
    "a mosaic that nothing describes": raw_file(photometric="minisblack"),
    "CR2": b"II*\0\x10\0\0\0CR\x02\0" + bytes(99),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(99),
    "ORF": b"IIRO\x08\0\0\0" + bytes(99),
    "RW2": b"IIU\0\x18\0\0\0" + bytes(99),
    "CRW": b"II\x1a\0\0\0HEAPCCDR" + bytes(99),
}


@pytest.mark.parametrize("kind", ["NEF", "DNG"])
def test_camera_raw_is_developed(tmp_path, kind):
    pytest.importorskip("rawpy")
    path = tmp_path / "photo.jpg"  # whatever its name says
    path.write_bytes(RAW[kind])
    photo = read_photo(path)
    assert (photo.pixels.shape, photo.pixels.dtype) == ((240, 320, 3), np.uint16)
    assert read_photo_header(path) == (320, 240, "RAW")
    assert fields(photo.exif)["main", 271][2] == b"NIKON CORPORATION\0"
    assert photo.notes == ("It was developed from camera raw with the white balance of the camera.",)
    with pytest.raises(ImageError, match=r"0\.1 megapixels"):
        read_photo(path, max_megapixels=0.05)


@pytest.mark.parametrize("kind", RAW)
def test_camera_raw_is_never_its_preview(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    for read in (read_photo, read_photo_header):
        with pytest.raises(
            ImageError, match=r"is a camera raw file.*Develop it in a photo editor.*`pip install rawpy`"
        ):
            read(RAW[kind])


@pytest.mark.parametrize("kind", ["CR2", "CR3", "RAF", "ORF", "RW2"])
def test_damaged_camera_raw_is_refused_by_name(kind):
    pytest.importorskip("rawpy")
    with pytest.raises(ImageError, match=r"is a camera raw file that cannot be developed.*Develop it in"):
        read_photo(RAW[kind])


@pytest.mark.parametrize("below", [True, False])
def test_a_reduced_copy_in_front_is_not_the_photograph(below):
    """Scanners and slide software write a thumbnail first."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((6, 8, 3), np.uint8), photometric="rgb", subfiletype=1, metadata=None, subifds=int(below))
        writer.write((COLOUR >> 8).astype(np.uint8), photometric="rgb", metadata=None)
    photo = read_photo(file.getvalue())
    np.testing.assert_array_equal(photo.pixels, COLOUR >> 8)
    assert photo.notes == ()


# HEIC


def heic(size: tuple[int, int] = (64, 48), **info: object) -> bytes:
    image = pillow_heif.from_pillow(
        Image.fromarray(np.tile(np.linspace(0, 255, size[0]), (size[1], 1)).astype(np.uint8)).convert("RGB")
    )
    image[0].info.update(info)
    file = io.BytesIO()
    image.save(file, quality=90)
    return file.getvalue()


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = orientation, "Apple"
    return exif.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation):
    """iPhones say the orientation twice: by the file's properties and by EXIF."""
    data = heic(exif=oriented(orientation))
    upright = (48, 64) if orientation < 5 else (64, 48)
    photo = read_photo(data)
    assert photo.pixels.shape[:2] == upright
    first, last = photo.pixels[3, 3, 0].astype(int), photo.pixels[-4, -4, 0].astype(int)
    assert (first < last) == (orientation in (1, 4, 5, 6))
    assert read_photo_header(data) == (*upright[::-1], "HEIF")
    found = fields(photo.exif)
    assert int.from_bytes(found["main", 0x112][2].strip(b"\0")) == 1
    assert found["main", 0x10F][2] == b"Apple\0"


@pytest.mark.parametrize("mode, expected", [("RGB;16", "RGB;16"), ("RGBA;16", "RGBA;16"), ("L;16", "I;16")])
def test_10_bits_of_heic_stay(mode, expected):
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    samples = np.stack([grey] * (len(mode) - 3), axis=-1)
    file = io.BytesIO()
    pillow_heif.encode(mode, (64, 48), samples.tobytes(), file, quality=-1, chroma=444, matrix_coefficients=0)
    photo = read_photo(file.getvalue())
    assert (photo.mode, photo.pixels.max()) == (expected, 65535)
    np.testing.assert_allclose(photo.pixels[..., 0].astype(int), grey, atol=70)


def test_heic_for_hdr_keeps_its_mark(tmp_path):
    file = io.BytesIO()
    samples = np.zeros((48, 64, 3), np.uint16).tobytes()
    pillow_heif.encode("RGB;16", (64, 48), samples, file, color_primaries=9, transfer_characteristics=16)
    path = read_photo(file.getvalue()).save(tmp_path / "photo.png")
    assert png_chunks(path.read_bytes())[b"cICP"] == [bytes([9, 16, 0, 1])]


# More than one picture


def animated(format_name: str) -> bytes:
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("#c04020", "#2040c0", "#20c040")]
    return encoded(frames[0], format_name, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "TIFF", "WEBP", "AVIF", "MPO"])
def test_the_first_of_many_is_taken_and_said_so(format_name):
    photo = read_photo(animated(format_name))
    assert len(photo.notes) == 1 and "the first was taken" in photo.notes[0]
    np.testing.assert_allclose(photo.pixels[4, 8], [0xC0, 0x40, 0x20], atol=6)


def test_pictures_in_heic_and_gain_maps_are_named():
    pair = pillow_heif.from_pillow(Image.new("RGB", (64, 64)))
    pair.add_from_pillow(Image.new("RGB", (32, 32)))
    file = io.BytesIO()
    pair.save(file)
    assert read_photo(file.getvalue()).notes == ("It holds 2 pictures; the first was taken.",)
    iso = jpeg_with(encoded(Image.new("RGB", (16, 16)), "JPEG"), (0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"))
    assert read_photo(iso).notes == ("It holds a gain map for HDR displays, which is left out.",)


# Damaged is said of damaged files alone


LONG = b"haze " * 500_000
LARGE = {
    "text": [(b"zTXt", b"Comment\0\0" + zlib.compress(LONG))],
    "international text": [(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LONG))],
    "many texts": [(b"zTXt", b"Comment%d\0\0" % i + zlib.compress(LONG[:900_000])) for i in range(99)],
    "XMP": [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x:xmpmeta>" + LONG + b"</x:xmpmeta>"))],
}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", LARGE)
def test_png_with_large_texts_is_whole(tmp_path, kind, depth):
    image = Image.fromarray(COLOUR[..., 0] if depth == 16 else (COLOUR >> 8).astype(np.uint8))
    photo = read_photo(png_with(encoded(image, "PNG"), *LARGE[kind]))
    assert (photo.pixels.shape, photo.notes) == ((45, 61, 3), ())
    again = read_photo(photo.save(tmp_path / "photo.png"))
    assert again.metadata == photo.metadata
    np.testing.assert_array_equal(again.pixels, photo.pixels)


def test_png_with_a_large_profile_keeps_it(tmp_path):
    large = SRGB + np.random.default_rng(0).bytes(3_000_000)
    large = struct.pack(">I", len(large)) + large[4:]
    photo = read_photo(encoded(Image.new("RGB", (8, 8)), "PNG", icc_profile=large))
    assert read_photo(photo.save(tmp_path / "photo.png")).icc_profile == large
    assert read_photo(photo.save(tmp_path / "photo.tif")).icc_profile == large


def test_a_bomb_in_a_chunk_costs_the_chunk():
    bomb = zlib.compress(bytes(60_000_000), 1)
    photo = read_photo(png_with(encoded(Image.new("RGB", (8, 8)), "PNG"), (b"iCCP", b"x\0\0" + bomb)))
    assert photo.notes == ("The colour profile is left out: it unpacks to more than 32 MB.",)


def test_png_of_ios_applications_is_refused_by_name():
    with pytest.raises(ImageError, match="in the form of iOS applications"):
        read_photo(png_with(encoded(Image.new("RGB", (8, 8)), "PNG"), (b"CgBI", bytes(4))))


# What is written


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_without_loss_stays_without(tmp_path, mode):
    image = Image.fromarray((np.dstack([COLOUR, ALPHA])[..., : len(mode)] >> 8).astype(np.uint8))
    photo = read_photo(encoded(image, "WEBP", lossless=True, exact=True))
    again = read_photo(photo.save(tmp_path / "photo.webp"))
    assert photo.lossless and again.lossless
    np.testing.assert_array_equal(again.pixels, np.asarray(image)[..., :3])
    assert not read_photo(encoded(image, "WEBP", quality=90)).lossless


def test_a_png_called_jpg_keeps_its_transparency(tmp_path):
    path = tmp_path / "saved-from-web.jpg"
    path.write_bytes(encoded(Image.new("RGBA", (8, 6), (200, 100, 50, 128)), "PNG"))
    photo = read_photo(path)
    with pytest.raises(OutputError, match=r"transparency.*Use \.png"):
        photo.save(tmp_path / "out.jpg")
    assert read_photo(photo.save(tmp_path / "out.png")).alpha.max() == 128


def test_ffmpeg_and_opencv_files_are_read(tmp_path, sources):
    ffmpeg = program("ffmpeg")
    for name, form in (
        ("deep.png", "rgb48be"),
        ("deep.tiff", "rgb48le"),
        ("grey.tiff", "gray16le"),
        ("plain.webp", None),
    ):
        command = [
            ffmpeg,
            "-v",
            "error",
            "-i",
            sources / "colour.tif",
            *(["-pix_fmt", form] if form else []),
            tmp_path / name,
        ]
        subprocess.run(command, check=True)
        np.testing.assert_allclose(
            samples_of(tmp_path / name).astype(int).mean(axis=(0, 1)),
            by_magick(tmp_path / name, 3).astype(int).mean(axis=(0, 1)),
            atol=1,
        )


@pytest.mark.filterwarnings("error")
def test_a_tiff_of_rows_longer_than_pillow_takes_is_read(monkeypatch):
    """Its rows are decompressed as bytes, which are more than its pixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", COLOUR[..., 0].size)
    np.testing.assert_array_equal(samples_of(tiff(COLOUR, photometric="rgb", compression="zlib")), COLOUR)


def test_samples_that_would_fill_the_memory_are_refused():
    data = bytearray(tiff(np.zeros((4, 5, 4), np.float64), photometric="rgb", extrasamples=["unassalpha"]))
    for tag in (256, 257):
        entry = next(at for at in range(len(data)) if data[at : at + 8] == struct.pack("<HHI", tag, 4, 1))
        data[entry + 8 : entry + 12] = struct.pack("<I", 7500)
    with pytest.raises(ImageError, match=r"holds 1\.8 GB of samples\. Save it with 16 bits"):
        read_photo(bytes(data))
