"""Real-world single-image dehazing.

>>> import dehaze
>>> restoration = dehaze.load("api")("hazy.jpg")
>>> restoration.save("clear.png")
"""

from dehaze import memory
from dehaze.adjust import Adjustments
from dehaze.dehazer import Dehazer, Restoration, list_models, load
from dehaze.errors import DehazeError, ImageError, OutputError, UnknownModelError, VideoError, WeightsError

__all__ = [
    "Adjustments",
    "DehazeError",
    "Dehazer",
    "ImageError",
    "OutputError",
    "Restoration",
    "UnknownModelError",
    "VideoError",
    "WeightsError",
    "list_models",
    "load",
    "memory",
]
__version__ = "0.1.0"
