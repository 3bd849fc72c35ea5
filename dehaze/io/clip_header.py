"""Read the header of a clip and count its frames: a program that limits its own memory.

A clip of a few kilobytes can state millions of samples, whose tables take gigabytes while FFmpeg opens it. This file
imports nothing of the package, so that the program starts in a fraction of a second.
"""

import json
import sys

MAX_BYTES = 512 << 20  # of memory, beyond what the libraries take
MAX_RATE = 120  # frames per second


def read_header(path: str, max_seconds: float) -> dict[str, float]:
    """Return width and height in px, rate in frames per second, frame count, frames held, and time of the last in s.

    Frames are counted only in a clip that does not state to be longer than `max_seconds`.
    """
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    try:
        properties = {
            "width": cv2.CAP_PROP_FRAME_WIDTH, "height": cv2.CAP_PROP_FRAME_HEIGHT, "rate": cv2.CAP_PROP_FPS,
            "count": cv2.CAP_PROP_FRAME_COUNT,
        }  # fmt: skip
        found = {name: capture.get(which) for name, which in properties.items()}
    finally:
        capture.release()
    held, last = 0, 0.0
    if 1 <= found["rate"] <= MAX_RATE and found["count"] <= max_seconds * found["rate"] + 1:
        held, last = count_frames(path, max_seconds * found["rate"])
    return {**found, "held": held, "last": last}


def count_frames(path: str, enough: float) -> tuple[int, float]:
    """Return how many frames a clip holds, including those hidden by edit lists, and the time of the last one in s.

    Counting stops shortly after `enough` frames. Nothing is decoded, so this takes milliseconds.
    """
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    held, last = 0, 0.0
    try:
        while held <= enough + 1 and capture.grab():
            held += 1
            last = max(last, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    finally:
        capture.release()
    return held, last


def _limit_memory() -> None:
    import cv2  # noqa: F401  # what it takes is not the clip's

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
    _limit_memory()
    print(json.dumps(read_header(sys.argv[1], float(sys.argv[2]))))
