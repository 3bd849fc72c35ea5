import pytest

from dehaze.errors import UnknownModelError
from dehaze.registry import Registry


def test_registers_and_finds():
    registry = Registry("thing")

    @registry.register("one")
    class One:
        pass

    assert registry.get("one") is One
    assert registry.names() == ["one"]


def test_a_lazy_entry_is_imported_when_asked_for():
    registry = Registry("thing")
    registry.register_lazy("fraction", "fractions:Fraction")
    registry.register_lazy("broken", "no.such.module:Thing")  # costs nothing until used
    assert registry.get("fraction")(1, 2) == 0.5
    with pytest.raises(ModuleNotFoundError):
        registry.get("broken")


def test_a_duplicate_is_refused():
    registry = Registry("thing")
    registry.register_lazy("one", "fractions:Fraction")
    with pytest.raises(ValueError, match="'one' is registered twice"):
        registry.register("one")(object)


def test_an_unknown_name_suggests_the_nearest():
    registry = Registry("model")
    registry.register_lazy("cliphaze", "x:y")
    registry.register_lazy("draco", "x:y")
    with pytest.raises(UnknownModelError, match="Did you mean cliphaze"):
        registry.get("cliphase")
    with pytest.raises(UnknownModelError, match="Known: cliphaze, draco"):
        registry.get("zzz")
