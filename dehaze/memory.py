"""Memory: what the process keeps after it was freed, and errors that say there is too little."""

import ctypes

import torch

# Of mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

MAX_FREE_BYTES = 512 << 20  # at the end of the heap
MAX_HEAP_BLOCK = 128 << 20  # bytes of an allocation that is taken from the heap


def keep_freed_memory() -> bool:
    """Make the C library keep at least half a gigabyte of freed memory; return whether it does.

    glibc returns the memory of each layer's output to the system, which clears the next layer's page by page; on CPUs
    `draco` spends nearly half of its time on this. The setting holds for the whole process, so programs make it and the
    library never does. It helps the main thread most. Other C libraries do not have it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    # No further heaps, each of which would keep as much.
    settings = {_TRIM_THRESHOLD: MAX_FREE_BYTES, _MMAP_THRESHOLD: MAX_HEAP_BLOCK, _ARENA_MAX: 1}
    return all([mallopt(key, value) for key, value in settings.items()])


def release_freed_memory() -> bool:
    """Give memory that was freed back to the system now, and return whether the C library can.

    A page does so between two photographs: what one left free in the heap would add to what the next one takes.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(trim(0))


def out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that memory does not suffice; torch has a class of its own for some devices alone."""
    texts = ("out of memory", "DefaultCPUAllocator")  # as torch says on Apple's GPUs and on CPUs
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in texts)
