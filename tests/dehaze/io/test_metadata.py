"""What photographs say beside their pixels: all of it stays, byte for byte, or a note names it."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

import dehaze
from dehaze.errors import OutputError
from dehaze.io import colour
from dehaze.io.photo import read_photo
from tests.dehaze.io.photographs import (
    encoded,
    exif_of,
    exiftool,
    fields,
    jpeg_with,
    magick,
    png_chunks,
    png_with,
    tags,
)  # fmt: skip

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HOLD_EXIF = [".jpg", ".png", ".webp", ".tif"]
RAMP = Image.merge("RGB", [Image.linear_gradient("L").resize((40, 30), box=(i, 0, 256, 200)) for i in range(3)])
NAMES = {
    "Latin-1": "(c) 2024 Jörg Müller".encode("latin-1"),
    "UTF-8": "© 2024 Jörg Müller, Čapek".encode(),
    "Shift-JIS": "撮影者 田中".encode("shift-jis"),
}


def camera(order: str, name: bytes = b"Maker", **parts: object) -> bytes:
    """EXIF data as cameras write them, odd fields among them."""

    def ratio(*numbers: int) -> bytes:
        return struct.pack(f"{order}{len(numbers)}i", *numbers)

    def short(number: int) -> bytes:
        return struct.pack(f"{order}H", number)

    main = [
        (0x010E, 2, len(name) + 1, name + b"\0"),
        (0x010F, 2, 8, b"SAMSUNG\0"),
        (0x0112, 3, 1, short(6)),
        (0x0213, 3, 1, short(1)),
        (0x013B, 2, len(name), name),  # without the end that the standard asks for
        (0x8298, 2, len(name) + 1, name + b"\0"),
        (0xFDE8, 7, 5, b"\0\1\2\xff\xfe"),  # nobody knows it
    ]
    details = [
        (0x927C, 7, 64, b"Canon-like" + bytes(range(54))),
        (0x9204, 10, 1, ratio(-2, 0)),  # python-pillow/Pillow#8965
        (0x9003, 2, 20, b"2024:05:06 07:08:09\0"),
        (0x9286, 7, 13, b"UNICODE\0" + "日本".encode("utf-16-le") + b"\0"),
        (0xA001, 3, 1, short(65535)),
        (0xA002, 4, 1, struct.pack(f"{order}I", 40)),
        (0xA003, 4, 1, struct.pack(f"{order}I", 30)),
        (0xA432, 5, 4, ratio(24, 1, 70, 1, 0, 0, 28, 10)),
    ]
    place = [
        (1, 2, 2, b"N\0"),
        (2, 5, 3, ratio(48, 1, 8, 1, 30, 1)),
        (6, 10, 1, ratio(-30, 1)),
        (29, 2, 11, b"2024:05:06\0"),
    ]
    interop = [(1, 2, 4, b"R98\0"), (2, 7, 4, b"0100")]
    return exif_of(order, main, details, place, **{"interop": interop} | parts)


def in_format(format_name: str, exif: bytes, tmp_path: Path) -> bytes:
    if format_name != "TIFF":
        return encoded(RAMP, format_name, exif=exif)
    whole = read_photo(encoded(RAMP, "JPEG", exif=exif))
    return whole.save(tmp_path / "whole.tif").read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", HOLD_EXIF)
def test_every_field_of_exif_stays_byte_for_byte(tmp_path, order, name, suffix):
    given = camera(order, NAMES[name], thumbnail=b"\xff\xd8 a picture with haze \xff\xd9")
    photo = read_photo(encoded(RAMP, "JPEG", exif=given))
    assert photo.notes == ()
    written = photo.save(tmp_path / f"photo{suffix}")
    after = fields(read_photo(written).exif)
    before = {place: value for place, value in fields(given).items() if place[0] != "thumbnail"}
    before["main", 0x0112] = 3, 1, struct.pack(f"{order}H", 1)  # upright
    before["Exif", 0xA002], before["Exif", 0xA003] = before["Exif", 0xA003], before["Exif", 0xA002]
    if suffix == ".tif":
        del before["main", 0x0213], before["main", 0x0112]  # of another compression; Pillow's kind is the default
        after.pop(("main", 0x0112), None)
    assert after == before
    assert b"a picture with haze" not in written.read_bytes()
    assert photo.losses(written) == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", HOLD_EXIF)
def test_maker_notes_stay_at_their_offset(tmp_path, order, suffix):
    """They hold offsets that count from the start of the EXIF data."""
    given = camera(order)
    at = given.index(b"Canon-like") - 6
    written = read_photo(encoded(RAMP, "JPEG", exif=given)).save(tmp_path / f"photo{suffix}")
    if suffix == ".tif":
        assert written.read_bytes().index(b"Canon-like") == at
    assert read_photo(written).exif.index(b"Canon-like") - 6 == at


@pytest.mark.slow
@pytest.mark.parametrize("suffix", HOLD_EXIF)
def test_what_exiftool_writes_it_reads_again(tmp_path, suffix):
    source = tmp_path / "source.jpg"
    source.write_bytes(encoded(RAMP, "JPEG", icc_profile=SRGB))
    exiftool(
        "-overwrite_original", "-n", "-Make=Nikon", "-Model=D7200", "-Orientation=8", "-ExposureTime=0.004",
        "-FNumber=5.6", "-ISO=200", "-LensModel=18-105mm", "-GPSLatitude=48.1", "-GPSLatitudeRef=N",
        "-GPSLongitude=11.5", "-GPSLongitudeRef=E", "-GPSAltitude=-30", "-GPSAltitudeRef=1", "-SubSecTimeOriginal=42",
        "-OffsetTimeOriginal=+09:00", "-UserComment=日本",
        "-XPTitle=Dunst", "-InteropIndex=R98", "-XMP-dc:Subject=haze", "-XMP-xmp:Rating=4", "-XMP-tiff:Orientation=8",
        "-IPTC:Keywords=Nebel", "-IPTC:City=München", "-IPTC:CodedCharacterSet=UTF8", source,
    )  # fmt: skip
    photo = read_photo(source)
    written = photo.save(tmp_path / f"photo{suffix}")
    groups = ["EXIF", "XMP"] + ["IPTC"] * (suffix != ".webp")
    before, after = tags(source, *groups), tags(written, *groups)
    for name in ("IFD0:Orientation", "XMP-tiff:Orientation"):
        assert (before.pop(name), after.pop(name, 1)) == (8, 1)
    layout = {name for name in after if name.startswith("IFD0:") and name not in before} if suffix == ".tif" else set()
    changed = {"XMP-x:XMPToolkit", "IFD0:YCbCrPositioning", "IPTC:ApplicationRecordVersion"}
    assert {name: value for name, value in after.items() if name not in layout | changed} == {
        name: value for name, value in before.items() if name not in changed
    }
    assert len(before) > 25
    assert (photo.pixels.shape, photo.losses("a.webp")) == (
        (40, 30, 3),
        ("The IPTC data is left out: WEBP cannot hold it.",),
    )
    assert "error" not in exiftool("-validate", "-error", written).lower()


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["exiftool", "convert"])
def test_profiles_of_other_programs_in_png_are_read(tmp_path, tool):
    path = tmp_path / "photo.png"
    source = tmp_path / "source.jpg"
    source.write_bytes(encoded(RAMP, "JPEG", exif=camera(">")))
    exiftool("-overwrite_original", "-IPTC:City=Ulm", "-XMP-dc:Title=Dunst", source)
    if tool == "convert":
        magick(source, path)
    else:
        path.write_bytes(encoded(RAMP, "PNG"))
        exiftool("-overwrite_original", "-tagsfromfile", source, "-all:all", path)
    photo = read_photo(path)
    assert fields(photo.exif)["main", 0x010F] == (2, 8, b"SAMSUNG\0")
    assert photo.pixels.shape == (40, 30, 3)
    assert b"Dunst" in photo.metadata.xmp
    read = tags(photo.save(tmp_path / "again.jpg"), "IPTC", "XMP", "EXIF")
    assert (read["IPTC:City"], read["XMP-dc:Title"], read["IFD0:Orientation"]) == ("Ulm", "Dunst", 1)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_a_broken_field_goes_alone_and_is_named(format_name):
    given = bytearray(camera("<"))
    at = given.index(struct.pack("<HHI", 0xA432, 5, 4))
    given[at + 8 : at + 12] = struct.pack("<I", 1 << 30)  # points behind the data
    kind = given.index(struct.pack("<HHI", 0x9003, 2, 20))
    given[kind + 2] = 99
    photo = read_photo(encoded(RAMP, format_name, exif=bytes(given)))
    assert photo.notes == (
        "The EXIF field DateTimeOriginal is left out: it is damaged.",
        "The EXIF field LensSpecification is left out: it is damaged.",
    )
    left = {place: value for place, value in fields(camera("<")).items() if place[1] not in (0xA432, 0x9003)}
    assert fields(photo.exif).keys() == left.keys()


def test_exif_that_is_too_long_for_jpeg_loses_its_largest_field_alone(tmp_path):
    given = exif_of(
        "<",
        [(0x010F, 2, 6, b"Maker\0")],
        [(0x9003, 2, 20, b"2024:05:06 07:08:09\0"), (0x927C, 7, 70_000, bytes(70_000))],
    )
    photo = read_photo(encoded(RAMP, "PNG", exif=given))
    path = photo.save(tmp_path / "photo.jpg")
    assert photo.losses(path) == ("The EXIF field MakerNote is left out: it is longer than JPEG allows.",)
    assert fields(read_photo(path).exif).keys() == {("main", 0x010F), ("Exif", 0x9003)}
    assert fields(read_photo(photo.save(tmp_path / "photo.tif")).exif)["Exif", 0x927C][1] == 70_000


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", HOLD_EXIF)
def test_adobe_rgb_said_by_exif_stays_and_becomes_a_profile(tmp_path, order, suffix):
    given = camera(order, interop=[(1, 2, 4, b"R03\0")])
    again = read_photo(read_photo(encoded(RAMP, "JPEG", exif=given)).save(tmp_path / f"photo{suffix}"))
    assert fields(again.exif)["Interop", 1] == (2, 4, b"R03\0")
    green = Image.new("RGB", (1, 1), (0, 255, 0))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(again.icc_profile))
    lab = ImageCms.profileToProfile(green, profile, ImageCms.createProfile("LAB"), outputMode="LAB").tobytes()
    # By Lindbloom, Adobe RGB's green is L 83.1, a −128.1; sRGB's is 87.8, −79.3.
    assert (lab[0] / 2.55, lab[1]) == (pytest.approx(83.1, abs=0.3), 256 - 128)


def test_colours_become_srgb_in_bmp_which_has_no_profile(tmp_path):
    green = Image.new("RGB", (8, 8), (100, 200, 100))
    photo = read_photo(encoded(green, "JPEG", quality=100, exif=camera("<", interop=[(1, 2, 4, b"R03\0")])))
    red, *_ = read_photo(photo.save(tmp_path / "photo.bmp")).pixels[4, 4]
    assert red < 40  # a green of the wider space, where its red is 100


RESOLUTIONS = {
    "JFIF": lambda: encoded(RAMP, "JPEG", dpi=(300, 150)),
    "JFIF in cm": lambda: (data := bytearray(encoded(RAMP, "JPEG", dpi=(118, 59))), data.__setitem__(13, 2))[0],
    "pHYs": lambda: encoded(RAMP, "PNG", dpi=(300, 150)),
    "TIFF": lambda: encoded(RAMP, "TIFF", dpi=(300, 150)),
    "TIFF of 16 bits": lambda: tiff16(resolution=(300, 150)),
    "TIFF in cm": lambda: tiff16(resolution=(118, 59), resolutionunit="CENTIMETER"),
    "BMP": lambda: encoded(RAMP, "BMP", dpi=(300, 150)),
}


def tiff16(**options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((3, 4, 3), np.uint16), photometric="rgb", metadata=None, **options)
    return file.getvalue()


@pytest.mark.parametrize("suffix", [*HOLD_EXIF, ".bmp"])
@pytest.mark.parametrize("kind", RESOLUTIONS)
def test_resolution_stays(tmp_path, kind, suffix):
    path = read_photo(bytes(RESOLUTIONS[kind]())).save(tmp_path / f"photo{suffix}")
    if suffix == ".webp":
        exif = Image.open(path).getexif()
        scale = 2.54 if exif[ExifTags.Base.ResolutionUnit] == 3 else 1
        read = [float(exif[tag]) * scale for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution)]
    else:
        read = Image.open(path).info["dpi"]
    assert [float(number) for number in read] == pytest.approx([300, 150], abs=0.5)


def gamma_png(*chunks: tuple[bytes, bytes], mode: str = "RGB") -> bytes:
    return png_with(encoded(Image.new(mode, (8, 8), 128 if mode == "L" else (128, 128, 128)), "PNG"), *chunks)


WIDE = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)  # Display P3
MARKS = {
    "gAMA": [(b"gAMA", struct.pack(">I", 100_000))],
    "cHRM": [(b"cHRM", WIDE), (b"gAMA", struct.pack(">I", 45_455))],
    "cICP": [(b"cICP", bytes([12, 13, 0, 1]))],
    "HDR": [(b"cICP", bytes([9, 16, 0, 1]))],
}


@pytest.mark.parametrize("kind", MARKS)
@pytest.mark.parametrize("depth", [8, 16])
def test_marks_of_colour_stay_in_png(tmp_path, kind, depth):
    path = tmp_path / "photo.png"
    path.write_bytes(gamma_png(*MARKS[kind]))
    if depth == 16:
        path.write_bytes(png_with(magick(path, "-define", "png:bit-depth=16", "-strip", "png:-"), *MARKS[kind]))
    found = png_chunks(read_photo(path).save(tmp_path / "again.png").read_bytes())
    assert {name: found[name] for name, _ in MARKS[kind]} == {name: [data] for name, data in MARKS[kind]}
    assert b"iCCP" not in found


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".bmp"])
def test_a_gamma_becomes_a_profile_elsewhere(tmp_path, suffix, mode):
    again = read_photo(read_photo(gamma_png(*MARKS["gAMA"], mode=mode)).save(tmp_path / f"photo{suffix}"))
    shown = int(again.pixels[4, 4, 0])
    if again.icc_profile:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(again.icc_profile))
        image = Image.new(mode, (1, 1), 128 if mode == "L" else (128, 128, 128))
        shown = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB").getpixel(
            (0, 0)
        )[0]
    assert shown == pytest.approx(188, abs=2)  # of linear light


def test_primaries_become_a_profile_elsewhere(tmp_path):
    for kind in ("cHRM", "cICP"):
        again = read_photo(read_photo(gamma_png(*MARKS[kind])).save(tmp_path / "photo.jpg"))
        profile = ImageCms.ImageCmsProfile(io.BytesIO(again.icc_profile))
        image = Image.new("RGB", (1, 1), (200, 100, 100))
        (shown,) = np.asarray(
            ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        )[0]
        np.testing.assert_allclose(shown, (215, 94, 97), atol=2)  # Display P3 to sRGB, by the matrices of CSS Color 4


def test_marks_that_say_srgb_make_no_profile(tmp_path):
    usual = [
        (b"gAMA", struct.pack(">I", 45_455)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    ]
    for chunks in (usual, [(b"sRGB", b"\0")], [(b"cICP", bytes([1, 13, 0, 1]))]):
        assert read_photo(read_photo(gamma_png(*chunks)).save(tmp_path / "photo.jpg")).icc_profile is None


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".bmp"])
def test_hdr_is_refused_where_it_cannot_be_said(tmp_path, suffix):
    with pytest.raises(OutputError, match=r"HDR displays.*Use \.png"):
        read_photo(gamma_png(*MARKS["HDR"])).save(tmp_path / f"photo{suffix}")


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    b' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:Container="http://ns.google.com/photos/1.0/container/"'
    b' xmlns:Item="http://ns.google.com/photos/1.0/container/item/"'
    b' tiff:Orientation="%d" hdrgm:Version="1.0" xmp:Rating="5"><Container:Directory><rdf:Seq><rdf:li>'
    b'<Container:Item Item:Semantic="GainMap" Item:Length="999"/></rdf:li></rdf:Seq>'
    b"</Container:Directory></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def test_a_gain_map_is_left_out_with_all_that_points_at_it(tmp_path):
    photo = read_photo(encoded(RAMP, "JPEG", xmp=XMP % 1))
    assert photo.notes == ("It holds a gain map for HDR displays, which is left out.",)
    packet = read_photo(photo.save(tmp_path / "photo.jpg")).metadata.xmp
    assert b'xmp:Rating="5"' in packet
    assert b"GainMap" not in packet and b"hdrgm:Version" not in packet
    assert tags(tmp_path / "photo.jpg", "XMP")["XMP-xmp:Rating"] == 5
    assert read_photo(tmp_path / "photo.jpg").notes == ()


@pytest.mark.parametrize("exif, expected", [(None, (40, 30)), (6, (40, 30)), (1, (30, 40))])
def test_orientation_by_exif_first_then_by_xmp(tmp_path, exif, expected):
    given = exif_of("<", [(0x112, 3, 1, struct.pack("<H", exif))]) if exif else b""
    path = tmp_path / "photo.jpg"
    photo = read_photo(encoded(RAMP, "JPEG", xmp=XMP % 8, exif=given))
    assert photo.pixels.shape[:2] == expected
    again = read_photo(photo.save(path))
    np.testing.assert_allclose(again.pixels.astype(int), photo.pixels, atol=12)
    assert b'tiff:Orientation="1"' in again.metadata.xmp


@pytest.mark.parametrize("depth", [8, 16])
def test_texts_stay_in_png_and_are_named_elsewhere(tmp_path, depth):
    texts = [
        (b"tEXt", b"Author\0J\xf6rg"),
        (b"zTXt", b"parameters\0\0" + zlib.compress(b"steps: 20")),
        (b"iTXt", b"Title\0\0\0de\0Titel\0" + "Dunst über Köln".encode()),
    ]
    data = encoded(RAMP, "PNG") if depth == 8 else encoded(Image.fromarray(np.zeros((4, 5), np.uint16)), "PNG")
    photo = read_photo(png_with(data, *texts))
    found = png_chunks(photo.save(tmp_path / "photo.png").read_bytes())
    assert [(name, found[name][0]) for name in (b"tEXt", b"zTXt", b"iTXt")] == texts
    assert photo.losses("photo.jpg")[0] == "The text (Author, parameters, Title) is left out: JPEG cannot hold it."


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_photograph_with_a_profile_for_rgb_becomes_rgb_in_png(tmp_path, mode):
    grey = np.asarray(RAMP.convert("L"))
    samples = grey.astype(np.uint16) * 257 if mode == "I;16" else np.asarray(RAMP.convert(mode))
    photo = read_photo(png_with(encoded(Image.fromarray(samples), "PNG"), (b"iCCP", b"ICC\0\0" + zlib.compress(SRGB))))
    assert photo.mode == mode
    path = photo.save(tmp_path / "photo.png")
    assert png_chunks(path.read_bytes())[b"IHDR"][0][9] == (6 if mode == "LA" else 2)  # colour type
    again = read_photo(path)
    assert again.icc_profile == SRGB
    np.testing.assert_array_equal(again.pixels, photo.pixels)


def test_a_grey_photograph_with_a_profile_for_rgb_becomes_srgb_in_bmp(tmp_path):
    photo = read_photo(encoded(RAMP.convert("L"), "JPEG", icc_profile=colour.adobe_rgb()))
    pixels = read_photo(photo.save(tmp_path / "photo.bmp")).pixels
    linear = (photo.pixels / 255.0) ** (563 / 256)
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    np.testing.assert_allclose(pixels, expected, atol=1.5)


def test_a_comment_stays(tmp_path):
    photo = read_photo(encoded(RAMP, "JPEG", comment=b"J\xf6rg"))
    assert Image.open(photo.save(tmp_path / "photo.jpg")).info["comment"] == b"J\xf6rg"
    assert png_chunks(photo.save(tmp_path / "photo.png").read_bytes())[b"tEXt"] == [b"Comment\0J\xf6rg"]
    assert photo.losses("photo.webp") == ("The comment is left out: WEBP cannot hold it.",)


@pytest.mark.parametrize("comment", ["Jörg, Čapek".encode(), b"J\xf6rg", b"plain"])
def test_a_comment_reads_the_same_in_png(tmp_path, comment):
    image = Image.open(read_photo(encoded(RAMP, "JPEG", comment=comment)).save(tmp_path / "photo.png"))
    image.load()
    assert image.text == {"Comment": comment.decode("latin-1" if b"\xf6" in comment else "utf-8")}


@pytest.mark.parametrize(
    "chunk",
    [
        (b"tEXt", b"Comment\0J\xf6rg"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"J\xf6rg")),
        (b"iTXt", b"Comment\0\0\0\0\0" + "Jörg".encode()),
    ],
)
def test_a_comment_of_png_stays_in_jpeg(tmp_path, chunk):
    photo = read_photo(png_with(encoded(RAMP, "PNG"), chunk, (b"tEXt", b"Author\0me")))
    assert photo.losses("photo.jpg") == ("The text (Author) is left out: JPEG cannot hold it.",)
    again = read_photo(photo.save(tmp_path / "photo.jpg"))
    assert again.metadata.comment == "Jörg".encode()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_of_pillow_keep_what_they_know(tmp_path, format_name):
    image = Image.open(io.BytesIO(in_format(format_name, camera("<"), tmp_path)))
    photo = read_photo(image)
    assert photo.pixels.shape == (40, 30, 3)
    found = Image.open(photo.save(tmp_path / "photo.jpg")).getexif()
    assert found[ExifTags.Base.Make].rstrip("\0") == "SAMSUNG"
    assert found.get(ExifTags.Base.Orientation, 1) == 1
    assert not {273, 279, 258} & set(found)
    gamma = Image.open(io.BytesIO(gamma_png(*MARKS["gAMA"])))
    assert read_photo(gamma).metadata.marks == {b"gAMA": MARKS["gAMA"][0][1]}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [*HOLD_EXIF, ".bmp"])
def test_metadata_can_be_stripped(tmp_path, suffix):
    source = tmp_path / "source.png"
    source.write_bytes(
        png_with(encoded(RAMP, "PNG", icc_profile=SRGB, exif=camera("<"), dpi=(300, 300)), (b"tEXt", b"Author\0secret"))
    )
    exiftool("-overwrite_original", "-XMP-dc:Creator=secret", "-IPTC:By-line=secret", source)
    restoration = dehaze.load("identity", device="cpu")(source)
    assert restoration.photo.exif
    path = restoration.save(tmp_path / f"photo{suffix}", strip_metadata=True)
    groups = "EXIF", "XMP", "IPTC", "GPS"
    left = {name for name in tags(path, *groups) if suffix != ".tif" or not name.startswith("IFD0:")}
    assert left == set()
    assert b"secret" not in path.read_bytes() and b"2024:05:06" not in path.read_bytes()
    again = read_photo(path)
    assert again.pixels.shape == (40, 30, 3)
    assert again.icc_profile == (None if suffix == ".bmp" else SRGB)


def test_segments_of_jpeg_stay_apart(tmp_path):
    """IPTC of Photoshop's blocks stays, and the thumbnail beside it goes."""
    iptc = b"\x1c\x02\x5a\x00\x03Ulm"
    blocks = (
        b"Photoshop 3.0\0"
        + b"8BIM\x04\x0c\0\0"
        + struct.pack(">I", 4)
        + b"hazy"
        + b"8BIM\x04\x04\0\0"
        + struct.pack(">I", 8)
        + iptc
    )
    photo = read_photo(jpeg_with(encoded(RAMP, "JPEG"), (0xED, blocks)))
    assert photo.metadata.iptc == iptc
    for suffix in (".jpg", ".tif", ".png"):
        path = photo.save(tmp_path / f"photo{suffix}")
        assert read_photo(path).metadata.iptc == iptc
        assert b"hazy" not in path.read_bytes()
