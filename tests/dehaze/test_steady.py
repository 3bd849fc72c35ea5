import resource
import struct
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import dehaze
from dehaze.dehazer import Dehazer
from dehaze.errors import VideoError
from dehaze.io import clip_header
from dehaze.io.clip import probe_clip, read_frames
from dehaze.networks.base import PredictsMaps
from dehaze.steady import SteadyDehazer, restore_clip

cv2 = pytest.importorskip("cv2")
SIZE = (96, 64)  # width and height


class Brightness(NamedTuple):
    gain: torch.Tensor


class Gain(PredictsMaps):
    """A network whose map is the brightness it sees and whose result is the input times the map."""

    multiple_of, min_size, margin, tile_size, maps_scale = 1, 1, 0, 64, 4

    def maps(self, hazy):
        return Brightness(F.avg_pool2d(hazy.mean(1, keepdim=True), 4))

    @staticmethod
    def apply_maps(hazy, maps):
        full = F.interpolate(maps.gain, size=hazy.shape[-2:], mode="bilinear", align_corners=False)
        return hazy * full, full


def gain():
    return Dehazer("gain", Gain(), torch.device("cpu"), torch.float32)


def scene(seed=0):
    noise = np.random.default_rng(seed).uniform(0.2, 0.8, (8, 12, 3)).astype(np.float32)
    return cv2.resize(noise, SIZE, interpolation=cv2.INTER_CUBIC).clip(0, 1)


def clip(path, frames, rate=10, codec="VP80"):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, (width, height))
    for frame in frames:
        writer.write((frame[..., ::-1] * 255).round().astype(np.uint8))
    writer.release()
    return path


def tensor(frame):
    return torch.from_numpy(frame.transpose(2, 0, 1).copy())[None]


def test_a_clip_keeps_length_rate_and_size(tmp_path):
    source = clip(tmp_path / "a.mp4", [scene() * level for level in np.linspace(0.5, 1, 6)], codec="mp4v")
    found = probe_clip(source)
    assert (found.width, found.height, found.rate, found.count) == (*SIZE, 10, 6)
    assert list(restore_clip(found, tmp_path / "b.webm", gain())) == [1, 2, 3, 4, 5, 6]

    result = probe_clip(tmp_path / "b.webm")
    assert (result.width, result.height, result.rate) == (*SIZE, 10)
    steady = SteadyDehazer(gain(), 10)
    expected = [steady(torch.from_numpy(frame.transpose(2, 0, 1).copy())[None] / 255) for frame in read_frames(found)]
    written = list(read_frames(result))
    assert len(written) == 6
    for frame, wanted in zip(written, expected, strict=True):
        assert np.abs(frame / 255 - wanted[0].permute(1, 2, 0).numpy()).mean() < 0.03  # what the codec loses


def test_colours_keep_their_order(tmp_path):
    red = np.zeros((*SIZE[::-1], 3), np.float32)
    red[..., 0] = 0.8
    frame = next(read_frames(probe_clip(clip(tmp_path / "a.webm", [red] * 2))))
    assert frame[..., 0].mean() > 150 and frame[..., 1:].mean() < 40


def test_nothing_flickers_where_the_picture_rests():
    """Noise that shakes every map on its own shakes the smoothed ones far less."""
    random = np.random.default_rng(1)
    frames = [(scene() + random.normal(0, 0.02)).clip(0, 1).astype(np.float32) for _ in range(30)]
    alone, network = [], Gain()
    steady = SteadyDehazer(gain(), 30)
    smoothed = []
    for frame in map(tensor, frames):
        alone.append((network.apply_maps(frame, network.maps(frame))[0] / frame.clamp_min(1e-3)).mean())
        smoothed.append((steady(frame) / frame.clamp_min(1e-3)).mean())
    change = [torch.stack(gains)[5:].diff().abs().mean() for gains in (alone, smoothed)]
    assert change[1] < change[0] / 3


def test_a_cut_starts_afresh():
    steady = SteadyDehazer(gain(), 30)
    for _ in range(5):
        steady(tensor(scene() * 0.3))
    after = tensor(scene(7) * 0.5 + 0.5)
    network = Gain()
    expected = network.apply_maps(after, network.maps(after))[0]
    assert (steady(after) - expected).abs().max() < 0.02


def test_strength_blends(tmp_path):
    frame = tensor(scene())
    full = SteadyDehazer(gain(), 10)(frame)
    half = SteadyDehazer(gain(), 10)(frame, 0.5)
    assert torch.allclose(half, (frame + full) / 2, atol=1e-6)


def test_the_shipped_model_restores_a_frame_as_a_photograph():
    frame = tensor(scene())
    dehazer = dehaze.load("api")
    restored = SteadyDehazer(dehazer, 10)(frame)
    inside = (..., slice(2, -2), slice(2, -2))  # at the border, maps end with the picture
    assert (restored - dehazer.restore_tensor(frame)[0])[inside].abs().max() < 1e-5


def test_models_without_maps_are_refused():
    with pytest.raises(VideoError, match="dcp restores every frame afresh"):
        SteadyDehazer(dehaze.load("dcp"), 10)


def test_long_clips_and_those_that_lie_about_it_are_refused(tmp_path):
    source = clip(tmp_path / "a.webm", [scene()] * 12)
    with pytest.raises(VideoError, match=r"lasts 1 s, and the limit is 0\.5 s"):
        probe_clip(source, max_seconds=0.5)
    lying = SimpleNamespace(path=source, rate=10)
    with pytest.raises(VideoError, match="lasts longer"):
        list(read_frames(lying, max_seconds=0.5))


def moov_first(path):
    """Move the header of an MP4 before its frames, as cameras and the web do."""
    data = bytearray(path.read_bytes())
    start, table = data.index(b"moov") - 4, data.index(b"stco") + 8
    for at in range(table + 4, table + 4 + 4 * int.from_bytes(data[table : table + 4]), 4):
        data[at : at + 4] = (int.from_bytes(data[at : at + 4]) + len(data) - start).to_bytes(4)
    first = int.from_bytes(data[:4])  # ftyp
    path.write_bytes(data[:first] + data[start:] + data[first:start])
    return path


@pytest.fixture(params=["a.webm", "a.mp4"])
def long_clip(request, tmp_path):
    frames = [scene(seed) for seed in range(40)]
    made = clip(tmp_path / request.param, frames, codec="VP80" if request.param == "a.webm" else "mp4v")
    return made if request.param == "a.webm" else moov_first(made)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_clip_cut_short_says_so_and_is_restored_as_far_as_it_goes(tmp_path, long_clip, share):
    whole = probe_clip(long_clip)
    assert (whole.count, whole.truncated) == (40, False)
    data = long_clip.read_bytes()
    long_clip.write_bytes(data[: int(len(data) * share)])
    cut = probe_clip(long_clip)
    assert (cut.count, cut.truncated) == (40, True)
    done = list(restore_clip(cut, tmp_path / "b.webm", gain()))
    assert done and abs(done[-1] - 40 * share) < 4
    assert probe_clip(tmp_path / "b.webm").count == done[-1]


@pytest.mark.parametrize(
    ("name", "codec", "end", "words"),
    [
        ("a.webm", "VP80", b"\x1f\x43\xb6\x75", "is cut short before the first of its 12 frames"),  # a cluster
        ("a.mp4", "mp4v", b"mdat", "is damaged or cut short"),  # this one's size stands in its frames
    ],
)
def test_a_clip_cut_before_its_first_frame_is_refused(tmp_path, name, codec, end, words):
    made = clip(tmp_path / name, [scene()] * 12, codec=codec)
    data = (moov_first(made) if name == "a.mp4" else made).read_bytes()
    made.write_bytes(data[: data.index(end) + 12])
    with pytest.raises(VideoError, match=words):
        list(restore_clip(probe_clip(made), tmp_path / "b.webm", gain()))
    assert not (tmp_path / "b.webm").exists()


def test_a_trimmed_clip_is_whole(tmp_path):
    """Phones cut by an edit list: the frames stay in the file and are not shown."""
    made = clip(tmp_path / "a.mp4", [scene()] * 12, codec="mp4v")
    data = bytearray(made.read_bytes())
    length = data.index(b"elst") + 12
    data[length : length + 4] = (int.from_bytes(data[length : length + 4]) // 2).to_bytes(4)
    made.write_bytes(data)
    found = probe_clip(made)
    assert not found.truncated
    assert len(list(read_frames(found))) == 6


def test_a_clip_of_uneven_frames_is_whole(tmp_path):
    """Its header gives the least interval between frames, by which OpenCV takes it for three times as many."""
    made = clip(tmp_path / "a.webm", [scene()] * 12)
    data = bytearray(made.read_bytes())
    interval = data.index(bytes.fromhex("23e38384")) + 4
    data[interval : interval + 4] = (10**8 // 3).to_bytes(4)  # in ns
    made.write_bytes(data)
    found = probe_clip(made)
    assert (found.rate, found.count, found.truncated) == (30, 12, False)


def test_a_clip_whose_last_frame_stays_is_whole(tmp_path):
    """Its frames end long before its time does."""
    made = clip(tmp_path / "a.mp4", [scene()] * 12, codec="mp4v")
    data = bytearray(made.read_bytes())
    times = data.index(b"stts") + 8  # how many entries, and each: how many frames, how long each
    frames, interval = (int.from_bytes(data[times + at : times + at + 4]) for at in (4, 8))
    entries = (2, frames - 1, interval, 1, 50 * interval)
    data[times : times + 12] = b"".join(number.to_bytes(4) for number in entries)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        size = data.index(box) - 4
        data[size : size + 4] = (int.from_bytes(data[size : size + 4]) + 8).to_bytes(4)
    made.write_bytes(data)
    found = probe_clip(made)
    assert found.count / found.rate == pytest.approx(6.1)
    assert (found.count, found.truncated) == (12, False)


def test_large_frames_are_reduced_to_even_sides(tmp_path, monkeypatch):
    monkeypatch.setattr("dehaze.io.clip.MAX_SIDE", 50)
    frame = next(read_frames(probe_clip(clip(tmp_path / "a.webm", [scene()]))))
    assert frame.shape == (32, 50, 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "is not an MP4"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "is not an MP4"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(400), "is damaged"),
        (b"\x1aE\xdf\xa3" + bytes(400), "is damaged"),
    ],
)
def test_what_is_no_clip_is_named(tmp_path, data, words):
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(VideoError, match=words):
        probe_clip(tmp_path / "a.mp4")


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
sys.argv = ["clip_header", {str(path)!r}, "10"]
runpy.run_path({clip_header.__file__!r}, run_name="__main__")
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 1_200_000  # kB; without the limit 2,900,000


def test_frames_that_change_their_size_are_refused(tmp_path, monkeypatch):
    source = probe_clip(clip(tmp_path / "a.webm", [scene()] * 3))
    sizes = iter([(32, 48), (32, 48), (64, 48)])
    capture = SimpleNamespace(read=lambda: (True, np.zeros((*next(sizes), 3), np.uint8)), release=lambda: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    with pytest.raises(VideoError, match="changes its size from 48×32 to 48×64 pixels"):
        list(read_frames(source))


def test_a_clip_that_is_broken_off_leaves_no_file(tmp_path):
    source = probe_clip(clip(tmp_path / "a.webm", [scene()] * 3))
    running = restore_clip(source, tmp_path / "b.webm", gain())
    assert next(running) == 1
    running.close()
    assert not (tmp_path / "b.webm").exists()


def test_a_clip_that_the_disk_has_no_room_for_is_named_and_leaves_no_file(tmp_path):
    source = probe_clip(clip(tmp_path / "a.webm", [scene(i) for i in range(8)]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # bytes of a file
    try:
        with pytest.raises(VideoError, match=r"b\.webm could not be written whole: it holds \d of 8 frames.*Make room"):
            list(restore_clip(source, tmp_path / "b.webm", gain()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "b.webm").exists()


def test_every_frame_waits_for_its_turn(tmp_path):
    turns = []

    class Turn:
        def __enter__(self):
            turns.append("in")

        def __exit__(self, *_):
            turns.append("out")

    source = probe_clip(clip(tmp_path / "a.webm", [scene()] * 2))
    for done in restore_clip(source, tmp_path / "b.webm", gain(), turn=Turn):
        assert turns == ["in", "out"] * done


def test_without_opencv_the_error_says_what_to_install(tmp_path, monkeypatch):
    source = clip(tmp_path / "a.webm", [scene()])
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(VideoError, match="pip install opencv-python-headless"):
        probe_clip(source)
