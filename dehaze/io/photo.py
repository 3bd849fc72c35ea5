"""Read photographs of any kind, keep depth, alpha and metadata, and write them atomically."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dehaze.errors import DehazeError, ImageError, OutputError
from dehaze.filters.colour import luminance
from dehaze.io import colour, decode, deep, png
from dehaze.io.files import open_file, write_whole
from dehaze.io.metadata import Metadata, jpeg_segments, png_chunks

# Mode by bytes per sample and channels. Of the 16-bit modes Pillow has only "I;16"; the others follow its pattern.
_MODES = {
    (1, 1): "L",
    (1, 2): "LA",
    (1, 3): "RGB",
    (1, 4): "RGBA",
    (2, 1): "I;16",
    (2, 2): "LA;16",
    (2, 3): "RGB;16",
    (2, 4): "RGBA;16",
}
_GREY = ("L", "LA", "I;16", "LA;16")
_JPEG = ("JPEG", {"quality": 95, "subsampling": "4:4:4"})
# Formats that are written: suffix, then Pillow's name of the format and its options.
WRITABLE = {
    ".png": ("PNG", {"compress_level": 3}),  # level 6 takes several times as long and saves 10 %
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": ("WEBP", {"quality": 95, "exact": True}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".bmp": ("BMP", {}),
}
OPAQUE = ("JPEG", "BMP")  # formats without alpha
_STRIP_ROWS = 64  # px


@dataclass(frozen=True)
class Photo:
    """A decoded photograph, upright, with all that is needed to write it in its own kind."""

    pixels: np.ndarray  # H×W×3 RGB, uint8 or uint16; the three channels of a grey photograph are equal
    alpha: np.ndarray | None  # H×W, same dtype as pixels
    mode: str  # one of _MODES
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()  # of what was not taken from the file
    lossless: bool = False  # read from a lossless WebP file: a WebP file is written so, too

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile; made from what the file says where it has none."""
        return self.metadata.profile(self.mode in _GREY)

    @property
    def exif(self) -> bytes | None:
        return self.metadata.exif

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel is not opaque; screenshots often have an alpha channel that is opaque throughout."""
        return self.alpha is not None and bool(self.alpha.min() < np.iinfo(self.alpha.dtype).max)

    def tensor(self) -> Tensor:
        """Return the colours as a tensor [1, 3, H, W], float32 in [0, 1]."""
        height, width = self.pixels.shape[:2]
        planes = torch.empty(1, 3, height, width, dtype=torch.float32, device="cpu")
        for rows in _strips(height):
            planes[0, :, rows].numpy()[:] = self.pixels[rows].transpose(2, 0, 1)
            planes[0, :, rows].div_(np.iinfo(self.pixels.dtype).max)
        return planes

    def with_tensor(self, rgb: Tensor) -> "Photo":
        """Return a photograph of the same kind with new colours, a tensor [1, 3, H, W] in [0, 1].

        Values are clipped to [0, 1] and rounded. Alpha stays, and grey stays grey (Rec. 601 luma). Raises ValueError
        for another shape, DehazeError for NaN.
        """
        height, width = self.pixels.shape[:2]
        if rgb.shape != (1, 3, height, width):
            raise ValueError(f"expected a tensor [1, 3, {height}, {width}], got {list(rgb.shape)}")
        planes = rgb.detach()[0].to("cpu", torch.float32)
        pixels = np.empty(self.pixels.shape, self.pixels.dtype)
        for rows in _strips(height):
            strip = planes[:, rows]
            if strip.isnan().any():
                raise DehazeError(
                    "The restored image holds values that are not numbers.", setting="Restore it with dtype float32."
                )
            if self.mode in _GREY:
                strip = luminance(strip[None])[0].expand(3, -1, -1)
            scaled = strip.clamp(0, 1).mul_(np.iinfo(pixels.dtype).max).round_().numpy()
            for channel in range(3):
                pixels[rows, :, channel] = scaled[channel]
        return replace(self, pixels=pixels)

    def image(self) -> Image.Image:
        """Return a Pillow image of the same mode; 16-bit colour, which Pillow cannot hold, becomes 8-bit."""
        samples = self._samples()
        return self._to_pillow(to_8_bits(samples) if _is_colour16(samples) else samples)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the photograph atomically in the format of the suffix, and return the path.

        PNG and TIFF keep 16 bits, the other formats have 8. JPEG has quality 95 and 4:4:4 chroma, WebP quality 95 if
        the photograph came with a loss. Metadata is kept as far as the format holds it, see `losses`. In BMP, which has
        no profile, colours become sRGB. JPEG and BMP have no alpha: one that is opaque throughout is dropped. Raises
        OutputError, for transparency too.
        """
        path = Path(path)
        format_name, options = format_of(path)
        if self.alpha is not None and format_name in OPAQUE:
            if self.is_transparent:
                raise OutputError(
                    f"cannot be written: the photograph has transparency, and {format_name} has none.",
                    "Use .png.",
                    subject=path,
                )
            return replace(self, alpha=None).save(path)
        if format_name != "PNG" and colour.hdr_transfer(self.metadata.marks):
            raise OutputError(
                f"cannot be written: the photograph is for HDR displays, which {format_name} cannot say here.",
                "Use .png.",
                subject=path,
            )
        try:
            data = self._encode(format_name, options)
        except MemoryError:
            raise
        except Exception as error:  # encoders raise every kind of exception on what exceeds their format
            raise OutputError(f"cannot be written as {format_name}: {error}.", "Use .png.", subject=path) from error
        write_whole(path, data)
        return path

    def losses(self, path: str | os.PathLike[str]) -> tuple[str, ...]:
        """Name what the format of a path cannot hold, a sentence each."""
        format_name, _ = format_of(Path(path))
        _, notes = self.metadata.within(format_name)
        reduced = self.pixels.dtype == np.uint16 and format_name not in ("PNG", "TIFF")
        return tuple([*notes, *[f"Its 16 bits a sample become 8 in {format_name}."] * reduced])

    def without_metadata(self) -> "Photo":
        """Return the photograph without EXIF, XMP, IPTC, text and resolution; the colour profile stays."""
        return replace(self, metadata=self.metadata.colour_alone())

    def _encode(self, format_name: str, options: dict) -> bytes:
        profile = self.icc_profile
        if format_name in ("PNG", "BMP") and self.mode in _GREY and profile and profile[16:20] == b"RGB ":
            # PNG forbids such a profile in a grey file, and the conversion to sRGB for BMP needs RGB.
            colour_mode = _MODES[self.pixels.itemsize, 3 if self.alpha is None else 4]
            return replace(self, mode=colour_mode)._encode(format_name, options)
        samples = self._samples()
        metadata, _ = self.metadata.within(format_name)
        if format_name == "PNG":
            data = deep.encode_png(samples) if _is_colour16(samples) else _by_pillow(samples, format_name, options)
            return png.with_chunks(data, png_chunks(metadata))
        if format_name == "TIFF":
            if _is_colour16(samples) and samples.shape[2] == 2:  # few programs read these
                samples = samples[..., [0, 0, 0, 1]]
            return deep.encode_tiff(samples, replace(metadata, icc_profile=profile))
        samples = to_8_bits(samples)
        if metadata.resolution and format_name != "WEBP":
            options = options | {"dpi": metadata.resolution}
        if format_name == "BMP":
            return _by_pillow(_in_srgb(samples, profile), format_name, options)
        if format_name == "WEBP" and profile and profile[16:20] == b"GRAY":  # its samples are RGB
            samples, profile = _in_srgb(samples, profile), None
        options = options | {"exif": metadata.exif or b"", "icc_profile": profile, "xmp": metadata.xmp or b""}
        if format_name == "JPEG":
            options = options | {"comment": metadata.comment or b"", "extra": jpeg_segments(metadata)}
        elif self.lossless:
            options = options | {"lossless": True, "quality": 80}  # of its effort
        return _by_pillow(samples, format_name, options)

    def _samples(self) -> np.ndarray:
        """Return the samples in the layout of files: H×W grey, or H×W×C with alpha last."""
        if self.alpha is not None:
            colours = self.pixels[..., :1] if self.mode in _GREY else self.pixels
            return np.concatenate([colours, self.alpha[..., None]], axis=2)
        return np.ascontiguousarray(self.pixels[..., 0]) if self.mode in _GREY else self.pixels

    def _to_pillow(self, samples: np.ndarray) -> Image.Image:
        image = Image.fromarray(samples)
        metadata = {"icc_profile": self.icc_profile, "exif": self.exif, "xmp": self.metadata.xmp}
        metadata |= {"dpi": self.metadata.resolution}
        image.info.update({name: value for name, value in metadata.items() if value})
        return image


def read_photo(
    source: str | os.PathLike[str] | bytes | Image.Image | np.ndarray, *, max_megapixels: float = 60.0
) -> Photo:
    """Read a photograph from a path, the bytes of a file, a Pillow image or an array.

    The EXIF orientation is applied. Palettes become colour, CMYK becomes sRGB (by its embedded profile if it has one),
    1-bit images become 8-bit grey. PNG, TIFF, HEIF and PPM files keep 9 to 16 bits, as 16. Camera raw is developed by
    rawpy, where it is installed. An animation gives its first frame, and `notes` says so. Arrays are H×W, H×W×3 or
    H×W×4 (alpha last) of uint8, uint16, or float in [0, 1], which becomes 16-bit. Raises ImageError.
    """
    if isinstance(source, np.ndarray):
        return _assemble(decode.decode_array(source, max_megapixels))
    if isinstance(source, Image.Image):
        return _assemble(decode.decode_pillow(source, max_megapixels))
    if isinstance(source, bytes):
        return _assemble(decode.decode_file(io.BytesIO(source), "The data", max_megapixels))
    if not isinstance(source, str | os.PathLike):
        kind = type(source).__name__
        raise ImageError(
            f"A photograph cannot be read from a {kind}.", "Give a path, bytes, a Pillow image or an array."
        )
    path = Path(source)
    with open_file(path) as file:
        return _assemble(decode.decode_file(file, path, max_megapixels))


def read_photo_header(source: Path | bytes) -> decode.Header:
    """Return width and height in px, and the format, of a file or its bytes; nothing is decoded. Raises ImageError."""
    if isinstance(source, bytes):
        return decode.read_header(io.BytesIO(source), "The data")
    with open_file(source) as file:
        return decode.read_header(file, source)


def format_of(path: Path) -> tuple[str, dict]:
    """Return Pillow's name and options for the format of a suffix. Raises OutputError."""
    suffix = path.suffix.lower()
    if suffix not in WRITABLE:
        raise OutputError(
            f"cannot be written: its suffix {suffix!r} is unknown.", f"Use {', '.join(WRITABLE)}.", subject=path
        )
    return WRITABLE[suffix]


def _assemble(decoded: decode.Decoded) -> Photo:
    samples = decoded.samples if decoded.samples.ndim == 3 else decoded.samples[..., None]
    channels = samples.shape[2]
    colours = samples[..., :3] if channels > 2 else np.repeat(samples[..., :1], 3, axis=2)
    return Photo(
        pixels=np.ascontiguousarray(colours),
        alpha=np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None,
        mode=_MODES[samples.dtype.itemsize, channels],
        metadata=decoded.metadata,
        notes=decoded.notes,
        lossless=decoded.lossless,
    )


def _by_pillow(samples: np.ndarray, format_name: str, options: dict) -> bytes:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, format_name, **options)
    return file.getvalue()


def _in_srgb(samples: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Convert 8-bit samples into sRGB by their profile; alpha stays."""
    if samples.ndim == 3 and samples.shape[2] in (2, 4):
        colours = _in_srgb(samples[..., 0] if samples.shape[2] == 2 else samples[..., :3], profile)
        colours = colours if colours.ndim == 3 else colours[..., None]
        return np.concatenate([colours, samples[..., -1:]], axis=2)
    converted = colour.to_srgb(Image.fromarray(np.ascontiguousarray(samples)), profile) if profile else None
    return samples if converted is None else np.asarray(converted)


def _strips(height: int) -> Iterator[slice]:
    """Yield strips of rows that fit into the caches of a processor: whole photographs at once take twice as long."""
    return (slice(top, top + _STRIP_ROWS) for top in range(0, height, _STRIP_ROWS))


def _is_colour16(samples: np.ndarray) -> bool:
    return samples.dtype == np.uint16 and samples.ndim == 3


def to_8_bits(samples: np.ndarray) -> np.ndarray:
    """Round 16-bit samples to 8 bits; samples of 8 bits stay. A table avoids a wider copy."""
    if samples.dtype == np.uint8:
        return samples
    return ((np.arange(65536) + 128) // 257).astype(np.uint8)[samples]
