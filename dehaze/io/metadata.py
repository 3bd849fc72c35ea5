"""What a file says beside its pixels, as bytes of its own standard, and what each format holds of it."""

import struct
import zlib
from dataclasses import dataclass, field, replace

from dehaze.io import colour, exif, png, xmp

XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP_HEAD = b"Photoshop 3.0\0"
_SEGMENT = 65_533  # bytes in a segment of a JPEG file
_IPTC = 0x0404


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels. `marks` and `texts` are chunks of a PNG file: of colour, and of text."""

    icc_profile: bytes | None = None
    exif: bytes | None = None  # begins with "Exif\\0\\0"; orientation 1
    xmp: bytes | None = None
    iptc: bytes | None = None
    resolution: tuple[float, float] | None = None  # pixels per inch
    comment: bytes | None = None  # of a JPEG or GIF file
    marks: dict[bytes, bytes] = field(default_factory=dict)
    texts: tuple[tuple[bytes, bytes], ...] = ()

    def colour_alone(self) -> "Metadata":
        """Return what says how the colours are meant, and nothing else."""
        return Metadata(icc_profile=self.icc_profile, marks=self.marks)

    def profile(self, grey: bool) -> bytes | None:
        """Return the ICC profile of the colours, made from the marks where there is none."""
        return self.icc_profile or colour.of_marks(self.marks, grey)

    def tidied(self, width: int, height: int) -> tuple["Metadata", list[str]]:
        """Make everything hold for upright pixels of a size; return it, and notes of what was left out."""
        notes: list[str] = []
        data, packet = self.exif, self.xmp
        if data is not None:
            try:
                data, broken = exif.tidy(data, width, height)
                notes += [left_out(f"EXIF field {name}", "it is damaged") for name in broken]
            except (ValueError, struct.error):
                data = None
                notes.append(left_out("EXIF data", "it is damaged"))
        if packet is not None:
            try:
                packet = xmp.tidy(packet, width, height)
            except ValueError as error:
                packet = None
                notes.append(left_out("XMP packet", str(error)))
        return replace(self, exif=data, xmp=packet), notes

    def within(self, format_name: str) -> tuple["Metadata", list[str]]:
        """Return what a format can hold, and notes of what it cannot."""
        held, notes = self, []

        def leave_out(name: str, why: str = f"{format_name} cannot hold it", **without: object) -> None:
            nonlocal held
            held = replace(held, **without)  # pyright: ignore[reportArgumentType]
            notes.append(left_out(name, why))

        if format_name == "BMP":
            for name, label in (("exif", "EXIF data"), ("xmp", "XMP packet")):
                if getattr(held, name):
                    held = replace(held, **{name: None})
                    notes.append(left_out(label, "BMP cannot hold it"))
        if format_name == "JPEG":
            long = "it is longer than JPEG allows"
            data, names = exif.within(held.exif, _SEGMENT)
            held = replace(held, exif=data)
            notes += [left_out(f"EXIF field {name}", long) for name in names]
            if held.xmp and len(held.xmp) > _SEGMENT - len(XMP_HEAD):
                leave_out("XMP packet", long, xmp=None)
            if held.iptc and len(held.iptc) > _SEGMENT - 40:
                leave_out("IPTC data", long, iptc=None)
            if held.comment and len(held.comment) > _SEGMENT:
                leave_out("comment", long, comment=None)
        if format_name in ("WEBP", "BMP") and held.iptc:
            leave_out("IPTC data", iptc=None)
        if format_name not in ("JPEG", "PNG") and held.comment:
            leave_out("comment", comment=None)
        if format_name == "JPEG" and not held.comment:
            found = [(name, data) for name, data in held.texts if data.startswith(b"Comment\0")]
            if found and (comment := _text(*found[0])) and len(comment) <= _SEGMENT:
                held = replace(held, comment=comment, texts=tuple(each for each in held.texts if each != found[0]))
        if format_name != "PNG" and held.texts:
            names = ", ".join(dict.fromkeys(data.partition(b"\0")[0].decode("latin-1") for _, data in held.texts))
            leave_out(f"text ({names[:200]})", texts=())
        if format_name == "WEBP" and held.resolution and not exif.has(held.exif, 282):
            data, _ = exif.with_values(held.exif, resolution_values(held.resolution, exif.order_of(held.exif)))
            held = replace(held, exif=exif.PREFIX + bytes(data))
        return held, notes


def _text(name: bytes, data: bytes) -> bytes | None:
    """Return the text of a PNG chunk as UTF-8; None if it is damaged."""
    try:
        text = png.text(name, data)
    except ValueError:
        return None
    return text if name == b"iTXt" else text.decode("latin-1").encode()


def left_out(what: str, why: str) -> str:
    return f"The {what} is left out: {why}."


def resolution_values(resolution: tuple[float, float], order: str) -> list[exif.Value]:
    """Return the fields of a TIFF directory for a resolution in pixels per inch."""

    def rational(number: float) -> bytes:
        scale = 1 if number == round(number) else 10_000
        return struct.pack(f"{order}II", min(round(number * scale), 2**32 - 1), scale)

    across, down = resolution
    unit = struct.pack(f"{order}H", 2)
    return [
        exif.Value(282, 5, 1, rational(across)),
        exif.Value(283, 5, 1, rational(down)),
        exif.Value(296, 3, 1, unit),
    ]


def sound_resolution(resolution: object) -> tuple[float, float] | None:
    """Return a resolution in pixels per inch if it is one that formats can hold."""
    try:
        across, down = (float(number) for number in resolution)  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= across < 60_000 and 1 <= down < 60_000 else None


def iptc_in_photoshop(blocks: bytes) -> bytes | None:
    """Return the IPTC data in the resource blocks of Photoshop."""
    at = 0
    while blocks[at : at + 4] == b"8BIM" and at + 12 <= len(blocks):
        code, name = struct.unpack_from(">HB", blocks, at + 4)
        start = at + 6 + (name + 2) // 2 * 2
        (size,) = struct.unpack(">I", blocks[start : start + 4].rjust(4, b"\0"))
        if code == _IPTC:
            return blocks[start + 4 : start + 4 + size] or None
        at = start + 4 + size + size % 2
    return None


def photoshop_of_iptc(iptc: bytes) -> bytes:
    """Return IPTC data as a resource block of Photoshop."""
    return b"8BIM" + struct.pack(">H2xI", _IPTC, len(iptc)) + iptc + bytes(len(iptc) % 2)


def jpeg_segments(metadata: Metadata) -> bytes:
    """Return the segments of a JPEG file that Pillow does not write."""
    if not metadata.iptc:
        return b""
    body = PHOTOSHOP_HEAD + photoshop_of_iptc(metadata.iptc)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def png_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Return the chunks of a PNG file for metadata."""
    chunks = [(name, metadata.marks[name]) for name in png.MARKS if name in metadata.marks]
    if metadata.icc_profile:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc_profile)))
    if metadata.resolution:
        per_metre = (round(number / 0.0254) for number in metadata.resolution)
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(exif.PREFIX)))
    if metadata.xmp:
        chunks.append((b"iTXt", png.XMP_KEYWORD + bytes(5) + metadata.xmp))
    if metadata.iptc:
        chunks.append(png.as_raw_profile(b"iptc", photoshop_of_iptc(metadata.iptc)))
    if metadata.comment:
        chunks.append(png.as_text(b"Comment", metadata.comment.replace(b"\0", b"")))
    return [*chunks, *metadata.texts]


def tiff_values(metadata: Metadata, order: str) -> list[exif.Value]:
    """Return the fields of a TIFF directory for metadata, except for EXIF."""
    found = ((700, 1, metadata.xmp), (33723, 7, metadata.iptc), (34675, 7, metadata.icc_profile))
    values = [exif.Value(tag, kind, len(data), data) for tag, kind, data in found if data]
    return values + (resolution_values(metadata.resolution, order) if metadata.resolution else [])
