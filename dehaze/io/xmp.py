"""XMP packets as text: what holds for the old file alone is changed or left out, and the rest stays byte for byte."""

import re

_NAMESPACES = {  # of what lies behind the photograph in its file, or shows it as it was
    b"http://ns.adobe.com/hdr-gain-map/1.0/",
    b"http://ns.google.com/photos/1.0/container/",
    b"http://ns.google.com/photos/1.0/container/item/",
    b"http://ns.google.com/photos/1.0/camera/",
    b"http://ns.google.com/photos/1.0/depthmap/",
    b"http://ns.adobe.com/xmp/note/",
}
_MAX_BYTES, _MAX_PREFIXES = 8_000_000, 10
_ORIENTATION = rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)([0-9])"
_GAIN_MAP = re.compile(rb"hdrgm:Version|HDRGainMap:HDRGainMapVersion")
_CLIP = re.compile(rb"G?Camera:(?:MotionPhoto|MicroVideo)(?:\s*=\s*[\"']|>)\s*1")


def orientation(xmp: bytes | None) -> int | None:
    """Return the orientation, 1 to 8, or None where the packet does not say."""
    found = re.search(_ORIENTATION, xmp or b"")
    return int(found[2]) if found and found[2] in b"12345678" else None


def has_gain_map(xmp: bytes | None) -> bool:
    return bool(_GAIN_MAP.search(xmp or b""))


def has_clip(xmp: bytes | None) -> bool:
    return bool(_CLIP.search(xmp or b""))


def tidy(xmp: bytes, width: int, height: int) -> bytes:
    """Make a packet hold for upright pixels of a size.

    Thumbnails go, and so does what points at a gain map, clip or depth map behind the photograph. Raises ValueError
    for a packet that would take long.
    """
    spaces = set(re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']([^\"']*)[\"']", xmp))
    prefixes = [prefix for prefix, space in spaces if space in _NAMESPACES]
    if len(xmp) > _MAX_BYTES or len(prefixes) > _MAX_PREFIXES:
        raise ValueError("it is too large")
    xmp = re.sub(_ORIENTATION, rb"\g<1>1", xmp)
    for names, new in (
        (rb"tiff:ImageWidth|exif:PixelXDimension", width),
        (rb"tiff:ImageLength|exif:PixelYDimension", height),
    ):
        xmp = re.sub(rb"((?:%b)\s*(?:=\s*[\"']|>)\s*)[0-9]+" % names, rb"\g<1>%d" % new, xmp)
    for thumbnails in (b"xmp:Thumbnails", b"xap:Thumbnails"):
        xmp = _without(xmp, thumbnails)
    for prefix in prefixes:
        xmp = re.sub(rb"\s%b:[\w.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*')" % re.escape(prefix), b"", xmp)
        xmp = _without(xmp, prefix + b":")
    return xmp


def _without(xmp: bytes, start: bytes) -> bytes:
    """Leave out the elements whose names begin with `start`."""
    kept, at = [], 0
    while (opened := xmp.find(b"<" + start, at)) >= 0 and (closed := xmp.find(b">", opened)) >= 0:
        if xmp[closed - 1 : closed] != b"/":
            name = re.match(rb"[\w:.-]+", xmp[opened + 1 : closed])
            end = b"</%b>" % (name[0] if name else start)
            if (last := xmp.find(end, closed)) < 0:
                break
            closed = last + len(end) - 1
        kept.append(xmp[at:opened])
        at = closed + 1
    return b"".join([*kept, xmp[at:]])
