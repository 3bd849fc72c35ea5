import numpy as np
import pytest
from PIL import Image

from bench import protocol
from bench.errors import ProtocolError


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_native_leaves_images_alone():
    image = noise(1001, 37)
    assert protocol.get("native-v1").prepare(image) is image


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1600, 1200), (800, 600)), ((1200, 1600), (600, 800)), ((801, 333), (800, 333)), ((2000, 1), (800, 1))],
)
def test_long800_brings_the_long_side_to_800(size, expected):
    rules = protocol.get("long800-v1")
    image = noise(*size)
    prepared = rules.prepare(image)
    assert prepared.size == rules.size(*size) == expected
    assert np.array_equal(prepared, image.resize(expected, Image.Resampling.LANCZOS))


def test_long800_never_enlarges():
    image = noise(640, 480)
    assert protocol.get("long800-v1").prepare(image) is image


def test_eight_bit_rounds():
    every = np.arange(65536, dtype=np.uint16).reshape(1, -1)
    assert np.array_equal(protocol.eight_bit(every), np.round(every / 257).astype(np.uint8))
    assert protocol.eight_bit(np.uint8([[3]])).tolist() == [[3]]
    with pytest.raises(TypeError, match="float64"):
        protocol.eight_bit(np.zeros((1, 1)))


def test_unknown_protocol_suggests():
    with pytest.raises(ProtocolError, match="native-v1"):
        protocol.get("native")
    assert protocol.names() == ["long800-v1", "native-v1"]
