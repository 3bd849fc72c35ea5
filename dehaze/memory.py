"""What becomes of memory that is freed."""

import ctypes

# Of mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

KEPT = 512 << 20  # bytes free at the end of the heap
LARGEST = 128 << 20  # bytes of a map that is taken from the heap


def keep_freed_memory() -> bool:
    """Have the C library keep half a gigabyte and more of what was freed, and tell whether it will.

    glibc gives the map that a layer has freed back to the system, which clears the next layer's page by page: on CPUs
    `draco` spends nearly half of its time so. This holds for the whole process; so programs call it, and the library
    never does. It serves the main thread best, for the heaps of other threads are small. Where the C library is
    another, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    # No further heaps, each of which would keep as much.
    settings = {_TRIM_THRESHOLD: KEPT, _MMAP_THRESHOLD: LARGEST, _ARENA_MAX: 1}
    return all([mallopt(key, value) for key, value in settings.items()])
