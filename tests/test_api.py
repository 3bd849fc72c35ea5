"""The public API stays as it is, unless somebody changes it on purpose: `python -m tests.test_api` writes it anew."""

import inspect
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import dehaze

FROZEN = Path(__file__).parent / "golden" / "api.txt"


def public_modules():
    """Yield `dehaze` and its modules that say what is public, without the page."""
    yield dehaze
    for found in walk_packages(dehaze.__path__, "dehaze."):
        if found.ispkg and not found.name.startswith("dehaze.page") and found.name != "dehaze.training.recipes":
            module = import_module(found.name)
            if hasattr(module, "__all__"):
                yield module


def surface():
    """Describe every public name: functions with their signatures, classes with their public members."""
    lines = []
    for module in public_modules():
        for name in module.__all__:
            lines += describe(f"{module.__name__}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


def describe(name, thing):
    if not callable(thing):
        return [f"{name}: {type(thing).__name__}"]
    if not inspect.isclass(thing):
        return [name + parameters(thing)]
    bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
    lines = [f"class {name}({bases}): {parameters(thing)}"]
    fields = inspect.signature(thing).parameters
    for member in dir(thing):
        value = inspect.getattr_static(thing, member)
        own = any(member in vars(base) for base in thing.__mro__ if base.__module__.startswith("dehaze"))
        if own and member not in fields and (member == "__call__" or not member.startswith("_")):
            lines.append(f"    {member}{parameters(value) if inspect.isfunction(value) else ''}")
    return lines


def parameters(function):
    """Return a signature without types, which each version of Python writes in its own way."""
    found = inspect.signature(function)
    untyped = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
    return str(found.replace(parameters=untyped, return_annotation=inspect.Signature.empty))


def test_the_public_api_is_the_frozen_one():
    assert surface() == FROZEN.read_text(encoding="utf-8"), "meant? then run: python -m tests.test_api"


if __name__ == "__main__":
    FROZEN.write_text(surface(), encoding="utf-8")
