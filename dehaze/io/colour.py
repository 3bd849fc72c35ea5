"""ICC profiles for colours that a file marks by other means than a profile."""

import io
import struct
from contextlib import suppress

import numpy as np
from PIL import Image, ImageCms

_D50 = np.array([0.9642, 1.0, 0.8249])
_D65 = (0.3127, 0.329)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
_ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
# Code points of ITU-T H.273: primaries (all with white D65), and the transfer that one gamma describes.
_PRIMARIES = {
    1: _SRGB,
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_LIKE_SRGB = {1, 6, 13, 14, 15}  # transfers that screens show as they show sRGB
HDR = {16, 18}  # transfers: PQ, HLG
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # parametric, type 3


def adobe_rgb() -> bytes:
    """Return a profile for Adobe RGB (1998)."""
    return _profile(_ADOBE, _D65, (563 / 256,))


def of_marks(marks: dict[bytes, bytes], grey: bool) -> bytes | None:
    """Return a profile for the colours that chunks of a PNG file describe; None for sRGB and for HDR."""
    if len(code := marks.get(b"cICP", b"")) == 4:
        if code[1] in HDR or (code[0] not in _PRIMARIES):
            return None
        if code[1] in _LIKE_SRGB:
            return None if code[0] == 1 or grey else _profile(_PRIMARIES[code[0]], _D65, _SRGB_CURVE)
        if code[1] not in _GAMMAS:
            return None
        return _profile(None if grey else _PRIMARIES[code[0]], _D65, (_GAMMAS[code[1]],))
    if b"sRGB" in marks or len(marks.get(b"gAMA", b"")) != 4:
        return None
    (share,) = struct.unpack(">I", marks[b"gAMA"])
    primaries, white = _SRGB, _D65
    if len(found := marks.get(b"cHRM", b"")) == 32:
        points = np.frombuffer(found, ">u4").reshape(4, 2) / 100_000
        if (points[:, 1] <= 0).any() or points.max() > 1:
            return None
        white, primaries = tuple(points[0]), tuple(map(tuple, points[1:]))
    usual = abs(share - 45455) < 700 and np.allclose([white, *primaries], [_D65, *_SRGB], atol=0.002)
    if usual or not 1000 <= share <= 1_000_000:
        return None
    with suppress(np.linalg.LinAlgError):  # primaries on one line are none
        # 45455 stands for the curve of sRGB in most files.
        curve = _SRGB_CURVE if abs(share - 45455) < 700 else (100_000 / share,)
        return _profile(None if grey else primaries, white, curve)
    return None


def hdr_transfer(marks: dict[bytes, bytes]) -> bool:
    """Return whether the samples are for HDR displays (PQ or HLG)."""
    code = marks.get(b"cICP", b"")
    return len(code) == 4 and code[1] in HDR


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert an image into sRGB by its profile; None if the profile is damaged, or is for other colours."""
    with suppress(ImageCms.PyCMSError, OSError):
        return ImageCms.profileToProfile(
            image,
            io.BytesIO(profile),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    return None


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """Convert CIE L*a*b* (white D50) of float H×W×3 into sRGB of uint16."""
    fy = (lab[..., :1] + 16) / 116
    f = np.concatenate([fy + lab[..., 1:2] / 500, fy, fy - lab[..., 2:] / 200], axis=2)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _D50.astype(np.float32)
    linear = (xyz @ np.linalg.inv(_colorants(_SRGB, _D65)).T.astype(np.float32)).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 65535).astype(np.uint16)


def _xyz(point: tuple[float, float]) -> np.ndarray:
    x, y = point
    return np.array([x / y, 1, (1 - x - y) / y])


def _colorants(primaries: tuple, white: tuple[float, float]) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ, adapted to D50 by the Bradford transform."""
    matrix = np.stack([_xyz(point) for point in primaries], axis=1)
    matrix = matrix * np.linalg.solve(matrix, _xyz(white))
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ _xyz(white))
    return np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ matrix


def _profile(primaries: tuple | None, white: tuple[float, float], curve: tuple[float, ...]) -> bytes:
    """Build an ICC profile (version 4) of primaries, None for grey, and a parametric curve."""

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))

    def xyz(numbers: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*numbers)

    def words(value: str) -> bytes:
        return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", 2 * len(value), 28) + value.encode("utf-16-be")

    tone = b"para\0\0\0\0" + struct.pack(">HH", 0 if len(curve) == 1 else 3, 0) + fixed(*curve)
    tags = [(b"desc", words("RGB" if primaries else "Grey")), (b"cprt", words("Public domain")), (b"wtpt", xyz(_D50))]
    if primaries is None:
        tags.append((b"kTRC", tone))
    else:
        colorants = _colorants(primaries, white).T
        tags += [(name, xyz(each)) for name, each in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True)]
        tags += [(name, tone) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), bytes(4), 0x04300000, b"mntr", b"RGB " if primaries else b"GRAY", b"XYZ "
    )
    head += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(*_D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
