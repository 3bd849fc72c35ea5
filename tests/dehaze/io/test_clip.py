"""Clips in and out. FFmpeg's programs make the clips and look at the results, as independent references."""

import json
import resource
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import torch

from dehaze.dehazer import Dehazer
from dehaze.errors import OutputError, VideoError
from dehaze.io import clip_header
from dehaze.io.clip import probe_clip, read_frames
from dehaze.networks.base import PredictsMaps
from dehaze.steady import restore_clip

pytest.importorskip("av")
has_ffmpeg = shutil.which("ffmpeg") and shutil.which("ffprobe")
pytestmark = [
    pytest.mark.skipif(not has_ffmpeg, reason="needs ffmpeg; on Debian: apt-get install ffmpeg"),
    pytest.mark.slow,  # every clip starts another Python for its header
]
BARS = "testsrc2=s=96x64:r=10:d=1,scale=96:64,setsar=1"
TONE = "sine=r=48000:d=1.25"
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


class Nothing(NamedTuple):
    gain: torch.Tensor


class Same(PredictsMaps):
    """A network that predicts maps and changes nothing."""

    multiple_of, min_size, margin, tile_size, maps_scale = 1, 1, 0, 64, 4

    def maps(self, hazy):
        return Nothing(hazy[:, :1, ::4, ::4])

    @staticmethod
    def apply_maps(hazy, maps):
        return hazy, hazy

    @staticmethod
    def change_maps(maps, change):
        return maps


SAME = Dehazer("same", Same(), torch.device("cpu"), torch.float32)


@pytest.fixture
def make(tmp_path):
    """Make a clip with FFmpeg from a picture and a sound, each a description or None."""

    def build(name, *options, picture=BARS, sound=None, before=()):
        inputs = [part for source in (picture, sound) if source for part in ("-f", "lavfi", "-i", source)]
        run("ffmpeg", "-v", "error", "-y", *before, *inputs, *options, tmp_path / name)
        return tmp_path / name

    return build


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True).stdout


def restore(source, **limits):
    target = source.with_name("restored.mp4")
    assert list(restore_clip(probe_clip(source, **limits), target, SAME))
    return target


def looked_at(path):
    """Return what ffprobe says of the first picture and sound, and the times of the frames in s."""
    found = json.loads(run("ffprobe", "-v", "error", "-show_streams", "-show_frames", "-of", "json", path))
    kinds = {kind: [s for s in found["streams"] if s["codec_type"] == kind] for kind in ("video", "audio")}
    frames = [frame for frame in found["frames"] if frame["media_type"] == "video"]
    times = [float(frame["best_effort_timestamp_time"]) for frame in frames]
    return kinds["video"][0], kinds["audio"], times


def upright(path, *filters):
    """Decode with ffmpeg as a player shows it: turned, in square pixels of one size."""
    shape = ",".join([*filters, "scale=iw*sar:ih", "setsar=1", "scale=64:64", "format=rgb24"])
    raw = run("ffmpeg", "-v", "error", "-i", path, "-vf", shape, "-vsync", "passthrough", "-f", "rawvideo", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, 64, 64, 3).astype(int)


def shown_shape(stream):
    """Return width by height of what a player shows."""
    width, height = stream["width"], stream["height"]
    turned = any(int(data.get("rotation", 0)) % 180 for data in stream.get("side_data_list", []))
    aspect = Fraction(*map(int, stream.get("sample_aspect_ratio", "1:1").split(":")))
    return 1 / (width * aspect / height) if turned else width * aspect / height


def assert_plays_alike(source, target):
    before, after = looked_at(source), looked_at(target)
    assert after[2] == pytest.approx([time - before[2][0] + after[2][0] for time in before[2]], abs=1e-3)
    assert shown_shape(after[0]) == shown_shape(before[0])
    assert not after[0].get("side_data_list")
    assert np.abs(upright(source) - upright(target)).mean() < 12  # codecs lose; a turn or a flip makes 50


@pytest.mark.parametrize(
    ("turn", "aspect"),
    [(90, "1"), (180, "1"), (270, "1"), (0, "2"), (0, "1/2"), (90, "16/11"), (180, "2"), (270, "1/2")],
)
def test_clips_play_upright_and_in_their_shape(make, turn, aspect):
    straight = make("straight.mp4", *H264, picture=BARS.replace("setsar=1", f"setsar={aspect}"))
    source = straight.with_name("turned.mp4")
    run("ffmpeg", "-v", "error", "-i", straight, "-c", "copy", "-metadata:s:v", f"rotate={turn}", source)
    assert_plays_alike(source, restore(source))


@pytest.mark.parametrize(("flip", "matrix"), [("hflip", (-1, 0, 0, 1)), ("vflip", (1, 0, 0, -1))])
def test_a_mirrored_clip_comes_out_as_it_is_shown(make, flip, matrix):
    """Front cameras mirror by the display matrix, which ffmpeg 5 does not apply."""
    source = make("a.mp4", *H264)
    data = source.read_bytes()
    unit = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    at = data.index(unit, data.index(b"tkhd"))
    a, b, c, d = (0x10000 * part for part in matrix)
    mirrored = source.with_name("mirrored.mp4")
    mirrored.write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000) + data[at + 36 :])
    assert np.abs(upright(restore(mirrored)) - upright(source, flip)).mean() < 12


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", H264), ("a.webm", ("-c:v", "libvpx")), ("a.mov", ("-c:v", "mpeg4"))]
)
@pytest.mark.parametrize(
    "times",
    [
        "if(lt(N\\,5)\\,N/10\\,if(lt(N\\,6)\\,1.5\\,2.9))",  # two pauses
        "N*N/40",  # ever slower
        "N/10+mod(N\\,2)*0.013",  # as phones in the dark
    ],
)
def test_frames_keep_their_times(make, name, options, times):
    chosen = f"select=lt(n\\,7),settb=1/1000,setpts=({times})/TB"
    source = make(name, "-vf", chosen, "-vsync", "passthrough", "-enc_time_base", "1:1000", *options)
    before = looked_at(source)[2]
    assert len(before) == 7 and len({round(gap, 2) for gap in np.diff(before)}) > 1
    assert_plays_alike(source, restore(source))


@pytest.mark.parametrize(
    ("name", "options", "codec"),
    [
        ("a.mp4", (*H264, "-c:a", "aac"), "aac"),
        ("a.mp4", (*H264, "-c:a", "libmp3lame"), "mp3"),
        ("a.mp4", (*H264, "-c:a", "ac3"), "ac3"),
        ("a.mov", (*H264, "-c:a", "pcm_s16le"), "aac"),
        ("a.mov", (*H264, "-c:a", "pcm_s24be", "-ac", "2", "-ar", "32000"), "aac"),
        ("a.webm", ("-c:v", "libvpx-vp9", "-c:a", "libopus"), "opus"),
        ("a.webm", ("-c:v", "libvpx", "-c:a", "libvorbis"), "aac"),
    ],
)
def test_sound_is_kept_whole_and_in_time(make, name, options, codec):
    """A tone from 0.4 s to 1.1 s, while the picture ends at 1 s."""
    source = make(name, *options, sound="sine=r=48000:d=1.25,volume='between(t,0.4,1.1)':eval=frame")
    target = restore(source)
    assert looked_at(target)[1][0]["codec_name"] == codec
    before, after = (tone(path) for path in (source, target))
    assert after == pytest.approx(before, abs=0.012)
    assert after == pytest.approx((0.4, 1.1), abs=0.03)


@pytest.mark.parametrize("delay", [("picture", 0.5), ("sound", 0.7)])
@pytest.mark.parametrize(("name", "sound"), [("a.mp4", "aac"), ("a.mov", "pcm_s16le"), ("a.webm", "libvorbis")])
def test_sound_and_picture_keep_their_distance(make, delay, name, sound):
    late, seconds = delay
    shift = {"picture": f"setpts=PTS+{seconds}/TB", "sound": "setpts=PTS"}[late]
    tone_filter = f"asetpts=PTS+{seconds if late == 'sound' else 0}/TB"
    source = make(
        name, "-vf", shift, "-af", tone_filter, "-vsync", "vfr", *(() if name == "a.webm" else H264), "-c:a", sound,
        sound="sine=r=48000:d=1.25,volume='between(t,0.4,1.1)':eval=frame",
    )  # fmt: skip
    target = restore(source)
    distances = [tone(path)[0] - looked_at(path)[2][0] for path in (source, target)]
    assert distances[1] == pytest.approx(distances[0], abs=0.03)


def test_every_track_of_sound_keeps_its_language(make):
    codecs = ("-map", "0", "-map", "1", "-map", "1", "-c:a:0", "libmp3lame", "-c:a:1", "pcm_s16le")
    languages = ("-metadata:s:a:0", "language=ger", "-metadata:s:a:1", "language=fra")
    sound = looked_at(restore(make("a.mov", *H264, *codecs, *languages, sound=TONE)))[1]
    assert [(track["codec_name"], track["tags"]["language"]) for track in sound] == [("mp3", "ger"), ("aac", "fra")]


def test_what_the_result_lacks_is_named(make, tmp_path):
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nfog\n")
    tracks = ("-i", tmp_path / "a.srt", "-map", "0", "-map", "0", "-map", "1", *H264)
    source = make("a.mkv", *tracks)
    clear = make("a.mov", "-vf", "format=rgba", "-c:v", "qtrle")
    assert probe_clip(source).notes == (
        "The result lacks parts of the clip: its further tracks of pictures, its subtitles.",
    )
    assert probe_clip(clear).notes == ("The result lacks parts of the clip: its transparency.",)
    webm = make("a.webm", "-vf", "format=yuva420p", "-c:v", "libvpx", "-auto-alt-ref", "0")
    assert probe_clip(webm).lacking == ("its transparency",)
    assert probe_clip(make("a.mp4", *H264, sound=TONE)).notes == ()


def tone(path):
    """Return when a tone begins and ends in s, as ffmpeg plays the sound from its first time stamp on."""
    raw = run("ffmpeg", "-v", "error", "-i", path, "-af", "aresample=8000:async=1:first_pts=0", "-ac", "1", "-f",
              "f32le", "-")  # fmt: skip
    loud = np.flatnonzero(np.abs(np.frombuffer(raw, np.float32)) > 0.02)
    return loud[0] / 8000, loud[-1] / 8000


def test_sound_that_was_trimmed_away_stays_away(make):
    """Phones trim by an edit list; the hidden sound must not travel on."""
    whole = make("whole.mp4", *H264, "-g", "100", "-c:a", "aac", picture=BARS.replace("d=1", "d=4"),
                 sound="sine=r=48000:d=4")  # fmt: skip
    trimmed = whole.with_name("trimmed.mp4")
    run("ffmpeg", "-v", "error", "-ss", "2.55", "-i", whole, "-c", "copy", trimmed)
    target = restore(trimmed)
    assert_plays_alike(trimmed, target)
    packets = run(
        "ffprobe", "-v", "error", "-select_streams", "a", "-show_entries", "packet=size", "-of", "csv", target
    )
    assert len(packets.split()) == pytest.approx(1.45 * 48000 / 1024, abs=8)


def test_a_pause_of_the_sound_stays(make):
    source = make("a.webm", "-c:v", "libvpx", "-c:a", "libvorbis", "-af", "aselect='lt(t,0.4)+gt(t,0.8)'", sound=TONE)
    assert tone(restore(source)) == pytest.approx((0, 1.25), abs=0.06)


COLOURS = {"red": (200, 40, 30), "green": (40, 180, 60), "blue": (30, 50, 200), "grey": (128, 128, 128)}


@pytest.mark.parametrize(
    ("matrix", "range_", "size", "stated"),
    [
        ("bt709", "tv", "96x64", True),
        ("smpte170m", "tv", "96x64", True),
        ("bt2020nc", "tv", "96x64", True),
        ("bt709", "pc", "96x64", True),
        ("smpte170m", "pc", "96x64", True),
        ("smpte170m", "tv", "96x64", False),  # what players assume below 720 lines,
        ("bt709", "tv", "96x720", False),  # and from there on
    ],
)
def test_colours_are_read_and_written_by_their_matrix_and_range(make, matrix, range_, size, stated):
    tags = ("-colorspace", matrix, "-color_primaries", "bt709", "-color_trc", "bt709") if stated else ()
    for name, colour in COLOURS.items():
        source = make(
            f"{name}.mp4", "-vf", f"format=gbrp,scale=out_color_matrix={matrix.removesuffix('nc')}:out_range={range_}",
            *H264, "-crf", "1", "-color_range", range_, *tags, 
            picture=f"color=0x{bytes(colour).hex()}:s={size}:r=10:d=0.3",
        )  # fmt: skip
        target = restore(source)
        for path in (source, target):
            frame = next(read_frames(probe_clip(path))).pixels
            assert np.abs(frame.reshape(-1, 3).mean(0) - colour).max() < 4.5, (name, path.name)  # another matrix: 15
        after = looked_at(target)[0]
        assert (after["color_space"], after["color_range"]) == (matrix, range_)
        kept = {after.get(key) for key in ("color_primaries", "color_transfer")}
        assert kept == ({"bt709"} if stated else {None})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", ("-c:v", "libx265", "-x265-params", "log-level=none")),
        ("a.mp4", ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none")),
        ("a.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv444p")),
        ("a.mkv", ("-c:v", "libx264rgb")),
        ("a.mov", ("-c:v", "prores")),
        ("a.mov", ("-c:v", "mjpeg")),
        ("a.mp4", (*H264, "-movflags", "frag_keyframe+empty_moov")),
        ("a.webm", ("-c:v", "libvpx-vp9", "-live", "1")),
    ],
)
def test_common_codecs_become_h264(make, name, options):
    source = make(name, *options)
    target = restore(source)
    assert_plays_alike(source, target)
    stream = looked_at(target)[0]
    assert stream["codec_name"] == "h264" and stream["pix_fmt"] in ("yuv420p", "yuvj420p")  # the latter: full range
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a browser can start before it has all


def test_a_clip_of_mediarecorder_has_neither_duration_nor_index(make, tmp_path):
    whole = make("whole.webm", "-c:v", "libvpx", "-c:a", "libopus", "-vf", "select='not(mod(n,3))+lt(n,3)'", "-vsync",
                 "vfr", sound=TONE)  # fmt: skip
    source = tmp_path / "a.webm"
    with source.open("wb") as file:  # a pipe: FFmpeg cannot go back to the header
        command = ["ffmpeg", "-v", "error", "-i", str(whole), "-c", "copy", "-live", "1", "-f", "webm", "-"]
        subprocess.run(command, check=True, stdout=file)
    assert "duration" not in json.loads(run("ffprobe", "-v", "error", "-show_format", "-of", "json", source))["format"]
    assert not probe_clip(source).truncated
    assert_plays_alike(source, restore(source))


@pytest.mark.parametrize("box", [b"wide", b"free", b"skip", b"pnot", b"moov", b"mdat"])
def test_a_mov_may_begin_with_another_box(make, box):
    """Older cameras and Live Photos write no `ftyp`."""
    source = make("a.mov", *H264, *(("-movflags", "+faststart") if box == b"moov" else ()))
    data = bytearray(source.read_bytes())
    first = int.from_bytes(data[:4])
    assert data[4:8] == b"ftyp"
    if box in (b"moov", b"mdat"):  # the box behind, with `ftyp` moved to the end, where it says nothing
        table = data.index(b"stco") + 8
        for at in range(table + 4, table + 4 + 4 * int.from_bytes(data[table : table + 4]), 4):
            data[at : at + 4] = (int.from_bytes(data[at : at + 4]) - first).to_bytes(4)
        rest = data[first:]
        if rest[4:8] in (b"wide", b"free") and box == b"mdat":
            free = int.from_bytes(rest[:4])
            table = rest.index(b"stco") + 8
            for at in range(table + 4, table + 4 + 4 * int.from_bytes(rest[table : table + 4]), 4):
                rest[at : at + 4] = (int.from_bytes(rest[at : at + 4]) - free).to_bytes(4)
            rest = rest[free:]
        data = rest
    else:
        data[4:8] = box
    assert data[4:8] == box
    source.write_bytes(data)
    assert len(looked_at(restore(source))[2]) == 10


@pytest.mark.parametrize("size", [(101, 75), (101, 74), (100, 75)])
def test_odd_sides_lose_one_line_and_say_so(make, size):
    source = make("a.mkv", "-c:v", "ffv1", picture=BARS.replace("scale=96:64", f"scale={size[0]}:{size[1]}"))
    found = probe_clip(source)
    assert any("odd side" in note for note in found.notes)
    target = restore(source)
    stream = looked_at(target)[0]
    assert (stream["width"], stream["height"]) == tuple(side // 2 * 2 for side in size)
    assert looked_at(target)[2] == pytest.approx(looked_at(source)[2])
    assert np.abs(upright(source) - upright(target)).mean() < 12


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_clips_are_refused_by_name(make, transfer, name):
    colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=none"
    source = make("a.mp4", "-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", colours)
    with pytest.raises(VideoError, match=rf"a\.mp4 is an HDR clip \({name}\)"):
        restore(source)
    assert not source.with_name("restored.mp4").exists()


def test_large_frames_are_reduced_to_even_sides(make):
    frame = next(read_frames(probe_clip(make("a.mp4", *H264), max_side=50))).pixels
    assert frame.shape == (32, 50, 3)


def test_place_and_date_are_kept_or_stripped(make):
    source = make("a.mp4", *H264, "-metadata", "location=+48.2+016.3/", "-metadata", "title=Wien")
    for strip in (False, True):
        list(restore_clip(probe_clip(source), source.with_name("b.mp4"), SAME, strip_metadata=strip))
        found = json.loads(run("ffprobe", "-v", "error", "-show_format", "-of", "json", source.with_name("b.mp4")))
        assert ("Wien" in str(found), "+48.2" in str(found)) == (not strip,) * 2


def test_long_clips_and_those_that_lie_about_it_are_refused(make):
    source = make("a.webm", "-c:v", "libvpx")
    with pytest.raises(VideoError, match=r"lasts 1 s, and the limit is 0\.3 s"):
        probe_clip(source, max_seconds=0.3)
    lying = replace(probe_clip(source), max_seconds=0.3)
    with pytest.raises(VideoError, match="lasts longer"):
        list(read_frames(lying))


def test_long_sound_is_refused_too(make):
    source = make("a.mp4", *H264, sound="sine=d=5")
    with pytest.raises(VideoError, match=r"lasts 5 s, and the limit is 2 s"):
        probe_clip(source, max_seconds=2)


def test_more_frames_than_a_camera_takes_are_refused(make):
    source = make("a.mp4", *H264, "-bf", "0", picture="color=black:s=16x16:r=1000:d=0.5")
    with pytest.raises(VideoError, match="holds more than 120 frames per second"):
        probe_clip(source, max_seconds=1)


@pytest.fixture(params=["a.webm", "a.mp4", "a.mkv"])
def long_clip(request, make):
    picture = BARS.replace("d=1", "d=4") + ",noise=alls=20:allf=t"
    options = {"a.webm": ("-c:v", "libvpx"), "a.mp4": (*H264, "-movflags", "+faststart"), "a.mkv": H264}
    return make(request.param, *options[request.param], "-g", "5", picture=picture)


@pytest.mark.parametrize("sound", [None, TONE])
def test_a_short_matroska_clip_is_whole_and_damage_in_it_is_found(make, sound):
    """Its first frames have no time of decoding, for others are shown before them."""
    picture = BARS + ",noise=alls=40:allf=t"
    source = make("a.mkv", *H264, "-bf", "3", "-shortest", picture=picture, sound=sound)
    found = probe_clip(source)
    assert (found.count, found.truncated, found.notes) == (10, False, ())
    shown = ("-select_streams", "v", "-show_entries", "packet=pos,size", "-of", "csv=p=0")
    packets = run("ffprobe", "-v", "error", *shown, source).decode().split()
    size, place = map(int, packets[5].split(",")[:2])
    data = bytearray(source.read_bytes())
    data[place + 16 : place + size] = bytes(size - 16)
    source.write_bytes(data)
    with pytest.raises(VideoError, match="is damaged after frame"):
        restore(source)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_clip_cut_short_says_so_and_is_restored_as_far_as_it_goes(long_clip, share):
    whole = probe_clip(long_clip)
    assert (whole.count, whole.truncated) == (40, False)
    data = long_clip.read_bytes()
    long_clip.write_bytes(data[: int(len(data) * share)])
    cut = probe_clip(long_clip)
    assert (cut.count, cut.truncated) == (40, True)
    assert "promises 40 frames" in cut.notes[0]
    target = restore(long_clip)
    assert abs(probe_clip(target).count - 40 * share) < 6


@pytest.mark.parametrize(
    ("name", "options", "end", "words"),
    [
        ("a.webm", ("-c:v", "libvpx"), b"\x1f\x43\xb6\x75", "is cut short before the first of its 10 frames"),
        ("a.mp4", H264, b"mdat", "is damaged or cut short"),
    ],
)
def test_a_clip_cut_before_its_first_frame_is_refused(make, name, options, end, words):
    made = make(name, *options)
    data = made.read_bytes()
    made.write_bytes(data[: data.index(end) + 12])
    with pytest.raises(VideoError, match=words):
        restore(made)
    assert not made.with_name("restored.mp4").exists()


@pytest.mark.parametrize("codec", [H264, ("-c:v", "mpeg4"), ("-c:v", "libx265", "-x265-params", "log-level=none")])
def test_a_damaged_clip_says_where(make, codec):
    picture = BARS.replace("d=1", "d=4") + ",noise=alls=40:allf=t"
    source = make("a.mp4", *codec, "-g", "5", picture=picture)
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    source.write_bytes(data)
    with pytest.raises(VideoError, match=r"is damaged after frame \d+, at [12]\.\d\d s: .+\. Copy or download"):
        restore(source)
    assert not source.with_name("restored.mp4").exists()


def test_frames_that_change_their_size_are_refused(make, tmp_path):
    parts = [
        make(f"{side}.h264", *H264, "-bf", "0", picture=f"testsrc2=s={side}x{side}:r=10:d=0.5") for side in (64, 96)
    ]
    raw = tmp_path / "a.h264"
    raw.write_bytes(b"".join(part.read_bytes() for part in parts))
    run("ffmpeg", "-v", "error", "-r", "10", "-i", raw, "-c", "copy", tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"changes its size from 64×64 to 96×96 pixels after frame 5, at 0\.\d\d s"):
        restore(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "is not an MP4"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "is not an MP4"),
        (b"GIF89a" + bytes(400), "is not an MP4"),
        (b"\x00\x00\x00\x18ftypavif" + bytes(400), "is not an MP4"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(400), "is damaged"),
        (b"\x1aE\xdf\xa3" + bytes(400), "is damaged"),
    ],
)
def test_what_is_no_clip_is_named(tmp_path, data, words):
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(VideoError, match=words):
        probe_clip(tmp_path / "a.mp4")


def test_a_file_of_sound_alone_is_named(make):
    with pytest.raises(VideoError, match="holds no picture, only sound"):
        probe_clip(make("a.mp4", picture=None, sound=TONE))


def box(kind, *parts):
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def lying_mp4(samples):
    """Return an MP4 file of some hundred bytes whose tables state `samples` frames of one byte."""

    def full(kind, *parts):
        return box(kind, bytes(4), *parts)

    look = struct.pack(">HHIIIH", 64, 64, 0x480000, 0x480000, 0, 1)
    entry = box(b"raw ", bytes(6), struct.pack(">H", 1), bytes(16), look, bytes(32), struct.pack(">Hh", 24, -1))
    table = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), entry),
        full(b"stts", struct.pack(">III", 1, samples, 1)),
        full(b"ctts", struct.pack(">III", 1, samples, 5)),
        full(b"stsc", struct.pack(">IIII", 1, 1, samples, 1)),
        full(b"stsz", struct.pack(">II", 1, samples)),
        full(b"stco", struct.pack(">II", 1, 48)),
    )
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">IIIII", 0, 0, samples, samples, 0)),
        full(b"hdlr", bytes(4), b"vide", bytes(13)),
        box(b"minf", full(b"vmhd", bytes(8)), table),
    )
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    track = full(
        b"tkhd", struct.pack(">IIIII", 0, 0, 1, 0, 1), bytes(16), matrix, struct.pack(">II", 64 << 16, 64 << 16)
    )
    movie = full(b"mvhd", struct.pack(">IIIIIH", 0, 0, 1, 1, 0x10000, 0x100), bytes(10), matrix, bytes(28))
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"moov", movie, box(b"trak", track, media))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_a_header_that_claims_gigabytes_gets_none(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(lying_mp4(80_000_000))
    with pytest.raises(VideoError):
        probe_clip(path)
    code = f"""
import re, runpy, sys
sys.argv = ["clip_header", {str(path)!r}, "mov", "10"]
try:
    runpy.run_path({clip_header.__file__!r}, run_name="__main__")
except MemoryError:
    pass
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 800_000  # kB; without the limit 2,900,000


def test_a_clip_that_is_broken_off_leaves_no_file(make, tmp_path):
    running = restore_clip(probe_clip(make("a.mp4", *H264)), tmp_path / "b.mp4", SAME)
    assert next(running) == 1
    running.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("room", [100, 8000])
def test_a_clip_that_the_disk_has_no_room_for_is_named_and_leaves_no_file(make, tmp_path, room):
    source = probe_clip(make("a.mp4", *H264, picture=BARS + ",noise=alls=40:allf=t"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # bytes of a file
    try:
        with pytest.raises(OutputError, match=r"b\.mp4 cannot be written: File too large\. Make room"):
            list(restore_clip(source, tmp_path / "b.mp4", SAME))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_every_frame_waits_for_its_turn(make, tmp_path):
    turns = []

    class Turn:
        def __enter__(self):
            turns.append("in")

        def __exit__(self, *_):
            turns.append("out")

    source = probe_clip(make("a.mp4", *H264))
    for done in restore_clip(source, tmp_path / "b.mp4", SAME, turn=Turn):
        assert turns == ["in", "out"] * done


def test_without_the_library_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(400))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match="pip install av"):
        probe_clip(tmp_path / "a.mp4")


def test_frames_before_time_0_are_shown(make):
    timing = ("-output_ts_offset", "-0.5", "-copyts", "-avoid_negative_ts", "disabled")
    source = make("early.mkv", "-c:v", "libx264", "-pix_fmt", "yuv420p", *timing)
    shown = ("-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0")
    counted = run("ffprobe", "-v", "error", *shown, restore(source))
    assert int(counted) == 10
