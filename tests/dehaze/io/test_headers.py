"""What headers of photographs from strangers may cost."""

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, TiffImagePlugin

from dehaze.errors import ImageError
from dehaze.io.photo import read_photo
from tests import bounded
from tests.dehaze.io.photographs import encoded, png_chunk


def saved(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("P" if form == "GIF" else "RGB", (64, 64)).save(file, form, **options)
    return file.getvalue()


def tiff(width: int, *tags: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A grey TIFF file of width×64 px; a tag is number, type, count and value, or its offset in `data`."""
    common = [(256, 3, 1, width), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    strip = [(273, 4, 1, 8), (278, 3, 1, 64), (279, 4, 1, 64 * width)]
    entries = {tag[0]: tag for tag in (*common, *strip, *tags)}
    start = 8 + 2 + 12 * len(entries) + 4
    directory = b"".join(
        struct.pack("<HHII", number, kind, count, start + value if count > 4 else value)
        for number, kind, count, value in sorted(entries.values())
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + data + bytes(64 * width)


def shared(tags: int, size: int) -> bytes:
    """Many tags that all point at the same bytes."""
    return tiff(64, *((1000 + i, 7, size, 0) for i in range(tags)), data=bytes(size))


def in_png(*chunks: tuple[bytes, bytes]) -> bytes:
    whole = saved("PNG")
    extra = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return whole[:33] + extra + whole[33:]


def in_pixels(times: int) -> bytes:
    """A PNG file whose pixels lie in many chunks, with another chunk before each."""
    whole = encoded(Image.effect_noise((200, 200), 90), "PNG")
    start = whole.index(b"IDAT") + 4
    pixels, rest = whole[start:-16], whole[-12:]
    parts = [pixels[i * len(pixels) // times : (i + 1) * len(pixels) // times] for i in range(times)]
    return whole[: start - 8] + b"".join(png_chunk(b"abCd", b"") + png_chunk(b"IDAT", part) for part in parts) + rest


def in_xmp(body: bytes) -> bytes:
    namespace = b'xmlns:a="http://ns.adobe.com/hdr-gain-map/1.0/" '
    return in_png((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(namespace + body)))


def in_jpeg(segment: bytes, times: int) -> bytes:
    whole = saved("JPEG")
    return whole[:2] + segment * times + whole[2:]


def in_gif(block: bytes) -> bytes:
    whole = saved("GIF")
    start = 13 + 3 * 2 ** ((whole[10] & 7) + 1)
    return whole[:start] + block + whole[start:]


FAR = struct.pack("<12I", 8, *[2_000_000_000] * 5, *[704] * 6)  # offsets and lengths
EXIF = b"\xff\xe1" + struct.pack(">H", 208) + b"Exif\0\0" + bytes(200)
HOSTILE: dict[str, Callable[[], bytes]] = {
    "tags of a TIFF share bytes": lambda: shared(2000, 1_000_000),
    "tags of EXIF share bytes": lambda: in_png((b"eXIf", shared(2000, 1_000_000))),
    "a tag of countless numbers": lambda: tiff(64, (258, 3, 5_000_000, 0), data=b"\x08\0" * 5_000_000),
    "countless EXIF segments": lambda: in_jpeg(EXIF, 30_000),
    "countless comments in a JPEG": lambda: in_jpeg(b"\xff\xfe\0\2", 2_000_000),
    "countless chunks": lambda: in_png(*[(b"abCd", b"")] * 500_000),
    "a comment of countless blocks": lambda: in_gif(b"!\xfe" + (b"\xff" + bytes(255)) * 30_000 + b"\0"),
    "countless comments in a GIF": lambda: in_gif(b"!\xfe\1x\0" * 300_000),
    "an endless comment": lambda: b"P6\n#" + b"x" * 10_000_000 + b"\n64 64\n255\n" + bytes(64 * 64 * 3),
    "chunks between the pixels": lambda: in_pixels(4000),
    "elements of XMP that never end": lambda: in_xmp(b"<a:x " * 90 + b"y" * 7_000_000),
    "countless elements of XMP": lambda: in_xmp(b"<a:x>" * 1_000_000),
    "countless thumbnails in XMP": lambda: in_xmp(b"<xmp:Thumbnails> " * 400_000),
    "a strip far behind the end": lambda: tiff(64, (273, 4, 6, 0), (279, 4, 6, 24), (278, 3, 1, 11), data=FAR),
    "tiles larger than the image": lambda: tiff(
        64, (322, 4, 1, 20_000), (323, 4, 1, 20_000), (259, 3, 1, 8), (324, 4, 1, 8), (325, 4, 1, 100)
    ),
}


@pytest.mark.slow
def test_headers_cost_little(tmp_path):
    (tmp_path / "plain").write_bytes(saved("PNG"))
    for name, made in HOSTILE.items():
        (tmp_path / name).write_bytes(made())
    calls = {name: [str(tmp_path / name)] for name in ("plain", *HOSTILE)}
    outcomes = bounded.run("dehaze.io.photo:read_photo", calls, timeout=120)
    assert outcomes.keys() == calls.keys()
    for name, outcome in list(outcomes.items())[1:]:
        assert outcome.error in (None, "ImageError"), (name, outcome)
        assert outcome.seconds < 2, (name, outcome)
        assert outcome.megabytes < 150, (name, outcome)


@pytest.mark.parametrize(
    "data",
    [
        tiff(64, (37724, 7, 20_000_000, 0), data=bytes(20_000_000)),  # layers of an image editor, most of the file
        in_jpeg(b"\xff\xe1\xff\xff" + b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_533 - 35), 300),
        saved("JPEG", comment=b"A comment", exif=b"Exif\0\0" + b"II*\0\x08\0\0\0" + bytes(60_000)),
        saved("TIFF", compression="tiff_lzw"),
    ],
    ids=["layers", "extended XMP", "a full EXIF", "LZW"],
)
def test_large_headers_are_read(data):
    assert read_photo(data).pixels.shape == (64, 64, 3)


def test_large_photographs_in_small_pieces_are_read():
    file = io.BytesIO()
    Image.effect_noise((2000, 1000), 90).save(file, "PNG", compress_level=1)
    assert read_photo(file.getvalue()).pixels.shape == (1000, 2000, 3)
    strips = io.BytesIO()
    TiffImagePlugin.STRIP_SIZE, before = 2000, TiffImagePlugin.STRIP_SIZE
    try:
        Image.effect_noise((2000, 1000), 90).save(strips, "TIFF", compression="tiff_deflate")
    finally:
        TiffImagePlugin.STRIP_SIZE = before
    assert read_photo(strips.getvalue()).pixels.shape == (1000, 2000, 3)


def test_other_code_reads_such_files_with_pillow_as_ever():
    data = shared(400, 100_000)
    with pytest.raises(ImageError):
        read_photo(data)
    with Image.open(io.BytesIO(data)) as image:
        assert len(image.tag_v2) > 400
