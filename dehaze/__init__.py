"""Real-world single-image dehazing.

>>> import dehaze
>>> restoration = dehaze.load("api")("hazy.jpg")
>>> restoration.save("clear.png")
"""

from dehaze.dehazer import Dehazer, Restoration, list_models, load

__all__ = ["Dehazer", "Restoration", "list_models", "load"]
__version__ = "0.1.0"
