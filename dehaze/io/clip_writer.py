"""Write clips with PyAV as H.264 in MP4 files, which every browser plays, with the sound of the source."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dehaze.errors import OutputError, VideoError
from dehaze.io.clip import BT709, MATRICES, RGB, UNSPECIFIED, Clip, Frame, damage_explained, exactly, opened
from dehaze.io.files import system_reason

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

_VIDEO_OPTIONS = {"crf": "18", "preset": "veryfast"}  # hardly visible losses
_COPIED_SOUND = {"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"}  # codecs that MP4 files hold; others become AAC
_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}  # Hz
_AAC_LAYOUTS = {"mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1"}
_AAC_BITS = 96_000  # per second and channel
_PRIMING_SECONDS = 0.1  # of hidden sound that a decoder needs before the first that is heard


class ClipWriter:
    """Write frames into an MP4 file at the times of the source, with its colours, pixel aspect, sound and title.

    Used as a context manager, which finishes the file. Nothing is kept in memory. Raises OutputError about `target`,
    and VideoError.
    """

    def __init__(self, path: str, clip: Clip, target: Path, strip_metadata: bool = False):
        self._path, self._clip, self._target, self._strip_metadata = path, clip, target, strip_metadata
        self._open = ExitStack()
        self._output: OutputContainer | None = None

    def __enter__(self) -> "ClipWriter":
        return self

    def __exit__(self, failed: type[BaseException] | None, *_) -> None:
        from av.error import FFmpegError

        with self._open:
            if self._output is None:
                return
            if failed:
                with suppress(FFmpegError):
                    self._output.close()
                return
            with self._explained():
                self._output.mux(self._pictures.encode(None))
                self._mux_sound(self._output, float("inf"))
                self._output.close()

    def write(self, pixels: np.ndarray, frame: Frame) -> None:
        """Write H×W×3 RGB uint8 pixels in place of a frame's own."""
        import av
        from av.video.reformatter import Colorspace

        with self._explained():
            output = self._output or self._begin(frame)
            picture = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24"),
                format="yuv420p", dst_colorspace=Colorspace[MATRICES[self._pictures.colorspace]],
                dst_color_range=self._pictures.color_range, interpolation=exactly(),
            )  # fmt: skip
            base = frame.source.time_base or Fraction(1, 1000)
            stamp = (frame.source.pts or 0) - round(self._start / base)
            self._last = stamp if self._last is None else max(stamp, self._last + 1)  # encoders want them to grow
            picture.pts, picture.time_base, picture.duration = self._last, base, frame.source.duration
            output.mux(self._pictures.encode(picture))
            self._mux_sound(output, float(self._last * base))

    def _begin(self, first: Frame) -> "OutputContainer":
        import av
        from av.video.reformatter import VideoReformatter

        source = self._open.enter_context(opened(self._clip))
        height, width = first.pixels.shape[:2]
        self._reformatter = VideoReformatter()
        shown = (first.source.pts or 0) * (first.source.time_base or Fraction(1))
        # Players show nothing of what lies before 0, as frames before 0 or without a time would.
        self._start = min(shown, max(Fraction(0), Fraction(source.start_time or 0, 1_000_000)))
        self._last = None
        self._output = output = av.open(
            os.path.abspath(self._path),  # a relative path could read as an address
            "w", format="mp4", container_options={"movflags": "+faststart"}, metadata_errors="replace",
        )  # fmt: skip
        if not self._strip_metadata:  # place, date, camera
            output.metadata.update(source.metadata)
        self._pictures = pictures = output.add_stream(
            "libx264", Fraction(self._clip.rate).limit_denominator(1001), dict(_VIDEO_OPTIONS),
            width=width, height=height, time_base=first.source.time_base,
        )  # fmt: skip
        context, carried = pictures.codec_context, first.source
        context.sample_aspect_ratio = first.pixel_aspect
        context.colorspace = BT709 if carried.colorspace == RGB else carried.colorspace
        context.color_range = 1 if carried.colorspace == RGB else carried.color_range or 1
        context.color_primaries = carried.color_primaries or UNSPECIFIED
        context.color_trc = carried.color_trc or UNSPECIFIED
        tracks = [_Track.add(output, stream) for stream in source.streams.audio if stream.codec_context]
        output.start_encoding()
        self._sound = _sound(source, tracks, self._start, self._clip)
        self._next_sound = next(self._sound, None)
        return output

    def _mux_sound(self, output: "OutputContainer", until: float) -> None:
        """Write the sound up to a time in s, so that players find it beside the frames."""
        while self._next_sound and self._next_sound[0] <= until:
            output.mux(self._next_sound[1])
            self._next_sound = next(self._sound, None)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from av.error import FFmpegError

        try:
            yield
        except FFmpegError as error:
            reason = f": {system_reason(error)}."
            if isinstance(error, OSError):
                advice = "Make room on the disk, or try again later."
                raise OutputError("cannot be written" + reason, advice, subject=self._target) from error
            advice = "Convert it to MP4 with H.264 and AAC."
            raise VideoError("cannot become an MP4 file" + reason, advice, subject=self._clip.path) from error


@dataclass
class _Track:
    """A track of sound in the source, the one in the file, and what converts it, unless it is copied."""

    source: "AudioStream"
    target: "AudioStream"
    resampler: "av.AudioResampler | None" = None

    @classmethod
    def add(cls, output: "OutputContainer", source: "AudioStream") -> "_Track":
        import av

        if source.codec_context.codec.canonical_name in _COPIED_SOUND:
            target = output.add_stream_from_template(source)
            resampler = None
        else:
            rate = source.rate if source.rate in _AAC_RATES else 48_000
            plain = "mono" if source.channels == 1 else "stereo"
            layout = source.layout.name if source.layout.name in _AAC_LAYOUTS else plain
            target = output.add_stream("aac", rate, layout=layout)
            target.bit_rate = _AAC_BITS * target.channels
            # Silence for gaps keeps sound and picture together.
            resampler = av.AudioResampler(target.format, layout, rate, target.frame_size or 1024, {"async": "1"})
        target.metadata.update(source.metadata)  # its language
        return cls(source, target, resampler)

    def packets(self, packet: "av.Packet", start: Fraction) -> "list[av.Packet]":
        """Return the packets for the file, whose time begins at `start`, from a packet of the source.

        The empty packet at the end flushes what converters hold.
        """
        shift = round(start / packet.time_base) if packet.time_base else 0
        if self.resampler is None:
            if packet.pts is None or packet.dts is None:
                return []
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, self.target
            return [packet]
        frames = []
        for frame in packet.decode():
            if frame.pts is not None:
                frame.pts -= shift
            frames += self.resampler.resample(frame)
        if not packet.size:
            frames += [*self.resampler.resample(None), None]
        return [made for frame in frames for made in self.target.encode(frame)]


def _sound(
    source: "InputContainer", tracks: list[_Track], start: Fraction, clip: Clip
) -> "Iterator[tuple[float, list[av.Packet]]]":
    """Yield the packets of all sound, with their time in s."""
    if not tracks:
        return
    by_index, time = {track.source.index: track for track in tracks}, 0.0
    packets = source.demux(*(track.source for track in tracks))
    while True:
        made = []
        with damage_explained(clip, f"in its sound at {time:.2f} s"):
            if (packet := next(packets, None)) is None:
                return
            if packet.pts is not None:
                time = float(packet.pts * packet.time_base - start)
                if packet.is_discard and not -_PRIMING_SECONDS <= time < 0:  # what was trimmed away stays away
                    continue
            made = by_index[packet.stream.index].packets(packet, start)
        yield time, made
