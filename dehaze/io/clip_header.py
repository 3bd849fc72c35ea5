"""Read the header of a clip and count its frames: a program that limits its own memory.

A clip of a few kilobytes can state millions of samples, whose tables take gigabytes while FFmpeg opens it. This file
imports nothing of the package, so that the program starts in a fraction of a second.
"""

import json
import sys
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_BYTES = 512 << 20  # of memory, beyond what the library takes
MAX_RATE = 120  # frames per second
_MANY_SAMPLES = 100_000  # of a track, whose table is missing when memory was short: FFmpeg goes on without it


def open_clip(file: BinaryIO, kind: str) -> "InputContainer":
    """Open a file as the format `kind` of FFmpeg and as no other: a playlist would make FFmpeg read other files."""
    import av

    # Text in the file may be of any encoding.
    return av.open(file, "r", format=kind, options={"protocol_whitelist": "none"}, metadata_errors="replace")


def picture_stream(container: "InputContainer") -> "VideoStream | None":
    """Return the stream of the frames, None if there is none; the cover of an album is none."""
    from av.stream import Disposition

    pictures = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return next(pictures, None)


def _lacking(container: "InputContainer", pictures: "VideoStream") -> list[str]:
    """Name what a clip holds and the result will lack."""
    from av.stream import Disposition

    codec = pictures.codec_context
    components = codec.format.components if codec and codec.format else ()
    tracks = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    held = {
        "its transparency": any(part.is_alpha for part in components) or pictures.metadata.get("alpha_mode") == "1",
        "its further tracks of pictures": len(tracks) > 1,
        "its subtitles": len(container.streams.subtitles) > 0,
    }
    return [name for name, is_held in held.items() if is_held]


def read_header(path: str, kind: str, max_seconds: float) -> dict[str, float | str | list[str] | None]:
    """Return what the header states and what the file holds.

    Stated: width and height in px, name of the codec, count of frames and length in seconds, each 0 if unknown, frames
    per second, and what the result will lack. Held: count of frames and of those that are shown, time of the first and
    the last of these, start and end of all frames and sound, and length in the order of decoding, in s. Nothing is
    decoded. Counting stops shortly after `max_seconds`. Raises av.FFmpegError or MemoryError.
    """
    from av.error import FFmpegError

    with open(path, "rb") as file, open_clip(file, kind) as container:
        if any(stream.frames > _MANY_SAMPLES and not len(stream.index_entries) for stream in container.streams):
            raise MemoryError
        pictures = picture_stream(container)
        if pictures is None:
            return {"codec": ""}
        codec = pictures.codec_context
        streams = [pictures, *container.streams.audio]
        lengths = [float(stream.duration * stream.time_base) for stream in streams if stream.duration]
        found = {
            "width": codec.width if codec else 0, "height": codec.height if codec else 0,
            "codec": codec.name if codec else None, "frames": pictures.frames,
            "rate": float(pictures.average_rate or 0), "lacking": _lacking(container, pictures),
            "seconds": max(lengths, default=(container.duration or 0) / 1e6),
        }  # fmt: skip
        held, shown, first, last, start, end = 0, 0, float("inf"), 0.0, float("inf"), 0.0
        first_decoded, last_decoded = float("inf"), 0.0  # a file that is cut short ends in this order
        # Matroska states no times of decoding, and FFmpeg puts the first one it knows to the start, not before it.
        late, frame_seconds = 0.0, 1 / found["rate"] if found["rate"] else 0.0
        try:
            for packet in container.demux(*streams):
                if packet.pts is None or not packet.size:
                    continue
                time, duration = (float(units * packet.time_base) for units in (packet.pts, packet.duration or 0))
                held += packet.stream is pictures
                if packet.is_discard:  # hidden by an edit list, as phones trim
                    continue
                start, end = min(start, time), max(end, time + duration)
                decoded = start if packet.dts is None else float(packet.dts * packet.time_base)
                if packet.stream is pictures:
                    decoded += late
                    late += (duration or frame_seconds) if packet.dts is None else 0
                first_decoded, last_decoded = min(first_decoded, decoded), max(last_decoded, decoded + duration)
                if packet.stream is pictures:
                    shown += 1
                    first, last = min(first, time), max(last, time)
                if time - start > max_seconds or held > max_seconds * MAX_RATE + 1:
                    break
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            # A file that is cut short ends here.
    return {
        **found, "held": held, "shown": shown, "first": min(first, last), "last": last, "start": min(start, end),
        "end": end, "length": last_decoded - min(first_decoded, last_decoded),
    }  # fmt: skip


def main(path: str, kind: str, max_seconds: float) -> None:
    """Print the header as JSON, an empty one for a file that cannot be opened."""
    _limit_memory()
    from av.error import FFmpegError

    try:
        header = read_header(path, kind, max_seconds)
    except FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        header = {}
    print(json.dumps(header))


def _limit_memory() -> None:
    import av  # noqa: F401  # what it takes is not the clip's

    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # macOS
        return
    resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_BYTES, taken + MAX_BYTES))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
