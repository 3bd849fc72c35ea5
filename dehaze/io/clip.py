"""Read clips with PyAV, the bindings of FFmpeg."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dehaze.errors import VideoError
from dehaze.io import clip_header
from dehaze.io.clip_header import open_clip, picture_stream
from dehaze.io.files import open_file, system_reason

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

MAX_SECONDS = 10  # of a clip on the page
MAX_SIDE = 1920  # px, on the page; larger frames are reduced
_MAX_FRAME_PIXELS = 8192 * 4320  # checked before a frame is decoded
_DECODING_THREADS = 4
_THREADED_PIXELS = 4096 * 2304  # of a frame; larger ones are decoded one after another
_HEADER_SECONDS = 10  # to read a header and count frames,
_HEADER_BYTES = 20 << 20  # and a second more for as many bytes of the file
_MIN_WHOLE_SHARE = 0.95  # of the frames or seconds that the header states: sound may last longer than the picture
_SLACK_SECONDS = 0.5  # by which sound outlasts a clip that was cut to length
_MOV_BOXES = {b"ftyp", b"wide", b"moov", b"mdat", b"free", b"skip", b"pnot"}  # with which MP4 and MOV files begin
_PHOTOGRAPH_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"crx "}  # not clips
_ASSUMED_MATRIX_LINES = 720  # from which on a clip without a stated matrix is BT.709, as players assume

# Matrices and transfer functions by their numbers in ITU-T H.273, which are also FFmpeg's.
RGB, BT709, UNSPECIFIED, BT601 = 0, 1, 2, 6
MATRICES = {BT709: "ITU709", 4: "FCC", 5: "ITU601", BT601: "ITU601", 7: "SMPTE240M", 9: "BT2020"}  # PyAV's names
_HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class Clip:
    """A clip that is not decoded yet: its file, width and height in px as stored, frames per second, and frame count.

    `truncated` is true if the file ends clearly before its header says. `count` is then the count in the header, and
    otherwise the count in the file. Frames are reduced to sides of `max_side` px; more than `max_seconds` are refused.
    """

    path: Path
    width: int
    height: int
    rate: float
    count: int
    truncated: bool = False
    max_seconds: float = MAX_SECONDS
    max_side: float = MAX_SIDE
    lacking: tuple[str, ...] = ()  # what the result will lack

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know about the result, each as a sentence."""
        cut = f"The clip is cut short: its header promises {self.count} frames."
        odd = "The last line of an odd side is cut off: MP4 files that play everywhere have even sides."
        is_odd = max(self.width, self.height) <= self.max_side and (self.width % 2 or self.height % 2)
        less = f"The result lacks parts of the clip: {', '.join(self.lacking)}."
        return (cut,) * self.truncated + (odd,) * bool(is_odd) + (less,) * bool(self.lacking)


class Frame(NamedTuple):
    """A decoded frame: its pixels, H×W×3 RGB uint8, upright, with even sides; its time in s since the clip began."""

    pixels: np.ndarray
    time: float
    pixel_aspect: Fraction  # width of a pixel by its height
    source: "av.VideoFrame"  # what else it carries: time stamp, duration, colours


def probe_clip(path: Path, max_seconds: float = MAX_SECONDS, max_side: float = MAX_SIDE) -> Clip:
    """Read the header of a clip and count its frames. Raises VideoError if it cannot be restored."""
    kind = _kind(path)
    header = _header(path, kind, max_seconds)
    if header.get("codec") == "":
        raise VideoError("holds no picture, only sound.", "Give a clip with a picture.", subject=path)
    width, height = header.get("width", 0), header.get("height", 0)
    if not (width > 0 and height > 0):
        raise VideoError(
            "is damaged or cut short, or its codec is not supported.",
            "Copy or download it again, or convert it to MP4 with H.264.",
            subject=path,
        )
    if not (width >= 16 and height >= 16 and width * height <= _MAX_FRAME_PIXELS):
        raise VideoError(
            f"has frames of {width}×{height} pixels.", "Give a clip of 16×16 up to 8192×4320.", subject=path
        )
    count, stated, length = header["frames"], header["seconds"], header["end"] - header["start"]
    if max(stated, length) > max_seconds + _SLACK_SECONDS:
        lasts = f"lasts {stated:.0f} s, and the limit is" if stated > max_seconds else "lasts longer than"
        raise VideoError(f"{lasts} {max_seconds:g} s.", "Cut it.", subject=path)
    held, shown = header["held"], header["shown"]
    if held > max_seconds * clip_header.MAX_RATE + 1:
        raise VideoError(
            f"holds more than {clip_header.MAX_RATE} frames per second.", "Convert it to a lower rate.", subject=path
        )
    between = header["last"] - header["first"]
    rate = (shown - 1) / between if shown > 1 and between > 0 else header["rate"] or 25.0
    truncated = header["length"] < _MIN_WHOLE_SHARE * stated and not held >= _MIN_WHOLE_SHARE * count > 0
    expected = (count or round(stated * (header["rate"] or rate))) if truncated else shown
    lacking = tuple(header["lacking"])
    return Clip(path, width, height, rate, expected, truncated, max_seconds, max_side, lacking)


def _kind(path: Path) -> str:
    """Return the name of FFmpeg's format. The content decides: a playlist would make FFmpeg read other files."""
    with open_file(path) as file:
        start = file.read(12)
    if not start:
        raise VideoError("is empty.", "Copy or download it again.", subject=path)
    if start[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if start[4:8] in _MOV_BOXES and not (start[4:8] == b"ftyp" and start[8:] in _PHOTOGRAPH_BRANDS):
        return "mov"
    raise VideoError("is not an MP4, MOV or WebM clip, whatever its name says.", "Convert it to MP4.", subject=path)


def _header(path: Path, kind: str, max_seconds: float) -> dict:
    """Read the header in a process of its own, whose memory and time are limited: a small file can claim gigabytes."""
    _library()
    program = [sys.executable, "-P", clip_header.__file__, os.path.abspath(path), kind, str(max_seconds)]
    seconds = _HEADER_SECONDS + path.stat().st_size / _HEADER_BYTES
    try:
        done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=seconds)
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        reason = "takes more memory or time to open than a clip of this length may."
        raise VideoError(reason, "Convert it to MP4 with H.264.", subject=path) from error


def read_frames(clip: Clip) -> Iterator[Frame]:
    """Yield the frames of a clip, upright; sides are even, the longer one at most `max_side`.

    An odd side loses its last line, since H.264 files that play everywhere have even sides. Raises VideoError if the
    clip holds no frame, changes its size, is damaged, is too long, or has colours that 8 bits cannot keep.
    """
    from av.video.reformatter import VideoReformatter

    with opened(clip) as container:
        stream = picture_stream(container)
        assert stream is not None  # `probe_clip` saw it
        # Threads that decode frames side by side hold some more of them.
        stream.thread_type = "AUTO" if stream.width * stream.height <= _THREADED_PIXELS else "SLICE"
        stream.thread_count = _DECODING_THREADS
        stream.codec_context.options = {"max_pixels": str(2 * _MAX_FRAME_PIXELS)}  # later frames may be larger
        pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        reformatter = VideoReformatter()  # one for all frames, since its tables take longer than a frame
        shape, begin, index = None, 0.0, 0
        for frame in _decode(container, stream, clip):
            begin = begin if index else frame.time or 0.0
            time = (frame.time or 0.0) - begin
            if time > clip.max_seconds + _SLACK_SECONDS or index > clip.max_seconds * clip_header.MAX_RATE + 1:
                raise VideoError(f"lasts longer than {clip.max_seconds:g} s.", "Cut it.", subject=clip.path)
            shape = shape or (frame.width, frame.height)
            if (frame.width, frame.height) != shape:
                sizes = f"from {shape[0]}×{shape[1]} to {frame.width}×{frame.height} pixels"
                reason = f"changes its size {sizes} after frame {index}, at {time:.2f} s."
                raise VideoError(reason, "Convert it to MP4 with H.264, in one size.", subject=clip.path)
            pixels, turned = _upright(_to_rgb(frame, clip, reformatter), _display_matrix(frame))
            height, width = (side // 2 * 2 for side in pixels.shape[:2])
            yield Frame(pixels[:height, :width], time, 1 / pixel_aspect if turned else pixel_aspect, frame)
            index += 1
    if not index and clip.truncated:
        raise VideoError(
            f"is cut short before the first of its {clip.count} frames.", "Download it again.", subject=clip.path
        )
    if not index:
        raise VideoError("holds no frame that can be read.", "Convert it to MP4 with H.264.", subject=clip.path)


@contextmanager
def opened(clip: Clip) -> Iterator["InputContainer"]:
    """Open a clip for reading. What cannot be read raises VideoError."""
    av = _library()
    try:
        with open_file(clip.path) as file, open_clip(file, _kind(clip.path)) as container:
            yield container
    except av.error.FFmpegError as error:
        reason = f"cannot be read: {system_reason(error)}."
        raise VideoError(reason, "Convert it to MP4 with H.264.", subject=clip.path) from error


def _library() -> ModuleType:
    try:
        import av
    except ImportError:
        raise VideoError("Clips need PyAV.", setting="Install it with `pip install av`.") from None
    return av


def _decode(container: "InputContainer", stream: "VideoStream", clip: Clip) -> Iterator["av.VideoFrame"]:
    """Yield the frames as they are stored, without those that a decoder had to guess in part."""
    index, time, packets = 0, 0.0, container.demux(stream)
    while True:
        where = f"after frame {index}, at {time:.2f} s"
        with damage_explained(clip, where):
            if (packet := next(packets, None)) is None:
                return
            for frame in packet.decode():
                if not frame.is_corrupt:
                    yield frame
                    index, time = index + 1, frame.time or time
                elif not clip.truncated:
                    raise _damaged(clip, where, "a part of the next frame is missing")


@contextmanager
def damage_explained(clip: Clip, where: str) -> Iterator[None]:
    """Raise VideoError with the place where a file cannot be decoded, unless it is known to be cut short."""
    try:
        yield
    except _library().error.FFmpegError as error:
        if not clip.truncated:
            raise _damaged(clip, where, system_reason(error)) from error


def _damaged(clip: Clip, where: str, reason: str) -> VideoError:
    advice = "Copy or download it again, or cut it there."
    return VideoError(f"is damaged {where}: {reason}.", advice, subject=clip.path)


def _to_rgb(frame: "av.VideoFrame", clip: Clip, reformatter: "VideoReformatter") -> np.ndarray:
    """Return the pixels of a frame, reduced to `max_side`, by the matrix and range that it states."""
    if frame.color_trc in _HDR:
        reason = f"is an HDR clip ({_HDR[frame.color_trc]}), and the models know standard dynamic range only."
        raise VideoError(reason, "Record or export it as SDR.", subject=clip.path)
    if frame.format.is_rgb:
        frame.colorspace = RGB
    elif frame.colorspace == UNSPECIFIED:
        frame.colorspace = BT709 if frame.height >= _ASSUMED_MATRIX_LINES else BT601
    elif frame.colorspace not in MATRICES:
        reason = f"has an uncommon colour matrix (number {frame.colorspace} of ITU-T H.273)."
        raise VideoError(reason, "Convert it to BT.709.", subject=clip.path)
    shrink = min(1, clip.max_side / max(frame.width, frame.height))
    width, height = (max(2, round(side * shrink)) for side in (frame.width, frame.height))
    method = exactly(shrink < 1)
    return reformatter.reformat(frame, width, height, "rgb24", interpolation=method, dst_color_range=2).to_ndarray()


def exactly(reduced: bool = False) -> int:
    """Return the flags for conversions that round colours correctly."""
    from av.video.reformatter import Interpolation

    method = Interpolation.AREA if reduced else Interpolation.BILINEAR
    return method | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def _display_matrix(frame: "av.VideoFrame") -> np.ndarray:
    """Return the 2×2 part of the matrix that turns stored coordinates (x, y) into shown ones, as a row times it."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return np.eye(2) if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def _upright(pixels: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    """Turn and mirror a picture by quarters as a display matrix says; return whether its axes have changed places."""
    turned = bool(np.abs(np.diag(matrix)).sum() < np.abs(matrix).sum() / 2)
    if turned:
        pixels, matrix = pixels.swapaxes(0, 1), matrix[::-1]
    columns, rows = np.where(np.diag(matrix) < 0, -1, 1)
    return pixels[::rows, ::columns], turned
