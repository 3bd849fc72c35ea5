"""Find what files say beside their pixels: in chunks of PNG, in tags of TIFF, and in what Pillow found elsewhere."""

import io
import struct
from contextlib import suppress
from typing import Any

from PIL import Image

from dehaze.io import exif, png, tiff, xmp
from dehaze.io.metadata import (
    PHOTOSHOP_HEAD,
    XMP_HEAD,
    Metadata,
    iptc_in_photoshop,
    left_out,
    sound_resolution,
)

GAIN_MAP = "It holds a gain map for HDR displays, which is left out."
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"


def first_of(count: int | str, what: str) -> str:
    return f"It holds {count} {what}; the first was taken."


def of_tiff(structure: tiff.Tiff) -> tuple[Metadata, list[str]]:
    """Return the metadata of a TIFF file, and notes of what was left out."""
    data, broken = exif.from_tiff(structure.structure, structure.offset, *tiff.size(structure))
    notes = [f"The EXIF field {name} is left out: it is damaged." for name in broken]
    if structure.pictures > 1:
        notes.append(first_of(structure.pictures, "pages"))
    iptc = structure.data(33723) or iptc_in_photoshop(structure.data(34377) or b"")
    metadata = Metadata(structure.data(34675), data, structure.data(700), iptc, _tiff_resolution(structure))
    return metadata, notes


def _tiff_resolution(structure: tiff.Tiff) -> tuple[float, float] | None:
    unit = {2: 1.0, 3: 2.54}.get(structure.number(296, 2))
    found = [structure.data(tag) or b"" for tag in (282, 283)]
    numbers = [struct.unpack(f"{structure.structure.order}II", data) for data in found if len(data) == 8]
    if unit is None or len(numbers) != 2:
        return None
    return sound_resolution([part / whole * unit if whole else 0 for part, whole in numbers])


def of_image(image: Any) -> tuple[Metadata, list[str]]:
    """Return the metadata that Pillow or pillow-heif found, and notes of what was left out."""
    info, notes, found = image.info, [], {}
    found["icc_profile"] = info.get("icc_profile") or None
    found["exif"] = _raw_exif(image)
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
    packet = packet.encode() if isinstance(packet, str) else packet
    found["xmp"] = packet.rstrip(b"\0") if packet else None
    photoshop = info.get("photoshop")
    if isinstance(photoshop, dict):
        found["iptc"] = photoshop.get(0x0404) or None
    if info.get("jfif_unit") in (1, 2):
        scale = 1 if info["jfif_unit"] == 1 else 2.54
        found["resolution"] = sound_resolution([number * scale for number in info["jfif_density"]])
    elif "dpi" in info and getattr(image, "format", None) not in ("JPEG", "MPO"):
        found["resolution"] = sound_resolution(info["dpi"])
    if "srgb" not in info and isinstance(gamma := info.get("gamma"), float) and 0 < gamma < 40_000:
        found["marks"] = {b"gAMA": struct.pack(">I", round(gamma * 100_000))}
        if len(points := info.get("chromaticity", ())) == 8 and all(0 <= point < 1 for point in points):
            found["marks"][b"cHRM"] = struct.pack(">8I", *(round(point * 100_000) for point in points))
    if isinstance(comment := info.get("comment"), bytes):
        found["comment"] = comment or None
    segments = getattr(image, "applist", [])
    if any(data.startswith(_EXTENDED_XMP) for _, data in segments):
        notes.append("The extension of the XMP packet is left out: it belongs to the photograph as it was.")
    if xmp.has_gain_map(found["xmp"]) or any(data.startswith(_ISO_GAIN_MAP) for _, data in segments):
        notes.append(GAIN_MAP)
    elif getattr(image, "format", None) == "MPO" and getattr(image, "n_frames", 1) > 1:
        notes.append(first_of(image.n_frames, "pictures"))
    elif getattr(image, "format", None) == "GIF" and getattr(image, "is_animated", False):
        notes.append(first_of("several", "frames"))  # whose number only reading all of them tells
    elif getattr(image, "format", None) in ("WEBP", "AVIF") and getattr(image, "n_frames", 1) > 1:
        notes.append(first_of(image.n_frames, "frames"))
    if xmp.has_clip(found["xmp"]):
        notes.append("It holds a clip, which is left out.")
    return Metadata(**found), notes


def _raw_exif(image: Any) -> bytes | None:
    data = image.info.get("exif")
    if isinstance(data, bytes) and data:
        return exif.PREFIX + data.removeprefix(exif.PREFIX)
    if isinstance(image, Image.Image) and not isinstance(data, bytes):
        with suppress(Exception):  # a photograph with damaged metadata can still be restored
            tags = exif.Structure(io.BytesIO(_written_by_pillow(image).removeprefix(exif.PREFIX)))
            return exif.build(tags.order, exif.gather(tags, tags.first)[0])
    return None


def _written_by_pillow(image: Image.Image) -> bytes:
    """Return the EXIF data of an image that has none as bytes, without the fields that Pillow cannot write."""
    found, kept = image.getexif(), Image.Exif()
    pointers = (exif.EXIF, exif.GPS)
    for tag in found:
        if tag not in pointers and _is_writable(tag, found[tag]):
            kept[tag] = found[tag]
    for pointer in pointers:
        fields = found.get_ifd(pointer).items()
        if sound := {tag: value for tag, value in fields if _is_writable(pointer, {tag: value})}:
            kept[pointer] = sound
    return kept.tobytes()


def _is_writable(tag: int, value: object) -> bool:
    alone = Image.Exif()
    alone[tag] = value
    with suppress(Exception):  # the encoders raise every kind of exception
        return bool(alone.tobytes())
    return False


def of_png(chunks: png.Chunks) -> tuple[Metadata, list[str]]:
    """Return the metadata in the chunks of a PNG file, and notes of what was left out."""
    found: dict[str, object] = {}
    texts, notes = [], []
    for name, data in chunks.others:
        try:
            if name == b"iCCP":
                found.setdefault("icc_profile", png.profile(data))
            elif name == b"eXIf":
                found["exif"] = exif.PREFIX + data.removeprefix(exif.PREFIX)
            elif name == b"pHYs" and len(data) == 9 and data[8] == 1:
                per_metre = struct.unpack(">II", data[:8])
                found["resolution"] = sound_resolution([number * 0.0254 for number in per_metre])
            elif name in (b"tEXt", b"zTXt", b"iTXt"):
                keyword = data.partition(b"\0")[0]
                if keyword == png.XMP_KEYWORD:
                    found["xmp"] = png.text(name, data)
                elif keyword.startswith(b"Raw profile type "):
                    _take_raw_profile(found, keyword[17:], png.raw_profile(png.text(name, data)))
                else:
                    texts.append((name, data))
        except ValueError as error:
            what = data.partition(b"\0")[0].decode("latin-1")[:79] if name != b"iCCP" else "colour profile"
            notes.append(left_out(what, str(error)))
    frames = int.from_bytes((chunks.first(b"acTL") or b"")[:4], "big")
    notes += [first_of(frames, "frames")] if frames > 1 else []
    marks = {name: data for name, data in reversed(chunks.others) if name in png.MARKS}
    return Metadata(**found, marks=marks, texts=tuple(texts)), notes  # pyright: ignore[reportArgumentType]


def _take_raw_profile(found: dict[str, object], kind: bytes, data: bytes) -> None:
    if kind in (b"exif", b"APP1") and data.startswith((exif.PREFIX, b"II", b"MM")):
        found.setdefault("exif", exif.PREFIX + data.removeprefix(exif.PREFIX))
    elif kind in (b"xmp", b"APP1"):
        found.setdefault("xmp", data.removeprefix(XMP_HEAD))
    elif kind in (b"iptc", b"8bim"):
        found.setdefault(
            "iptc", iptc_in_photoshop(data.removeprefix(PHOTOSHOP_HEAD)) or (data if data[:1] == b"\x1c" else None)
        )
    elif kind in (b"icc", b"icm"):
        found.setdefault("icc_profile", data)
