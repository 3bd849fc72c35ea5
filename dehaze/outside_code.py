"""Import the Python code of a model from outside the project, and hash what decides its output.

Importing runs the code: call this with names that the user typed alone.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from dehaze.errors import OutsideError, UnknownModelError
from dehaze.hub import one_line

ENTRY_POINTS = "dehaze.models"

_VERSIONED = {"dehaze", "bench", "torch"}  # their versions stand in every record
_CODE = (*importlib.machinery.all_suffixes(), ".pyc")
_SYSTEM = [("proc",), ("sys",), ("dev",), ("etc",)]  # say something of the machine and nothing of a model


def entry_points() -> dict[str, str]:
    """Return the models that installed packages offer: names, and `package.module:NAME` for each."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def import_file(file: Path, name: str) -> tuple[Any, str]:
    """Run a Python file as `python FILE` does; return what `name` stands for in it, and the hash of the code.

    The hash covers the file and the modules of its folder that it imports, directly or not. Raises UnknownModelError if
    the file or the name is missing, OutsideError that names the line if the code raises.
    """
    if not file.is_file():
        raise UnknownModelError("does not exist." if not file.exists() else "is not a file.", subject=file)
    file = file.resolve()
    folder, module = file.parent, ModuleType(f"dehaze_outside_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # where dataclasses and pickles look
    with _clear_errors(file, folder), _searched_first(folder):
        source = file.read_bytes()
        code = compile(source, file, "exec")
        sources = {module.__name__: file} | _imported(file, folder, "", _VERSIONED)
        # Another model's modules may have the same names.
        tops = {found.partition(".")[0] for found in sources} - {module.__name__}
        for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] in tops]:
            del sys.modules[loaded]
        digest = _hash(sources.values(), folder)
        exec(code, module.__dict__)
    return _named(module, name, file), digest


def import_module(module: str, name: str) -> tuple[Any, str]:
    """Import an installed module; return what `name` stands for in it, and the hash of the code of its package.

    Raises as `import_file` does.
    """
    with _clear_errors(module, None):
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):  # a package above it lacks something
                raise
            spec = None
    if spec is None:
        raise UnknownModelError(f"No module is called {module!r}.", "Install it, or name a file: FILE.py:NAME.")
    file = Path(spec.origin).resolve() if spec.origin and spec.has_location else None
    root = file and file.parents[module.count(".") + (file.name == "__init__.py")]
    with _clear_errors(module, root):
        found = importlib.import_module(module)
    digest = hashlib.sha256(sys.version.encode()).hexdigest()  # of a module without a file, which comes with Python
    if file and root:
        digest = _hash({file, *_package(module, file, root).values()}, root)
    return _named(found, name, module), digest


def source_sha256(object_: Any) -> str | None:
    """Return the hash of the code that a class or function comes from; None where it lies in no file."""
    code = object_ if hasattr(object_, "__module__") and hasattr(object_, "__qualname__") else type(object_)
    module = sys.modules.get(code.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not Path(file).is_file():
        return None
    path = Path(file).resolve()
    name = module.__spec__.name if module.__spec__ else path.stem
    root = path.parents[name.count(".") + (path.name == "__init__.py")]
    return _hash({path, *_package(name, path, root).values()}, root)


@contextmanager
def files_read() -> Iterator[set[Path]]:
    """Collect the data files that Python opens for reading meanwhile: weights that the code of a model loads.

    The set is complete at the end. Files that a library opens without Python are not in it.
    """
    _install_audit_hook()
    found: set[Path] = set()
    opened: set[str] = set()
    _watchers.append(opened)
    try:
        yield found
    finally:
        _watchers.remove(opened)
        found.update(path for path in map(Path, opened) if _is_data(path))


def _is_data(path: Path) -> bool:
    metadata = any(part.endswith((".dist-info", ".egg-info")) for part in path.parts)
    return not (path.suffix in _CODE or metadata or path.parts[1:2] in _SYSTEM) and path.is_file()


_watchers: list[set[str]] = []


@cache  # no hook can be removed
def _install_audit_hook() -> None:
    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and _watchers:
            path, mode, flags = arguments
            writes = any(letter in (mode or "") for letter in "wax+") or (mode is None and flags & 0o3)
            if isinstance(path, str | bytes | os.PathLike) and not writes:
                for opened in _watchers:
                    opened.add(os.path.abspath(os.fsdecode(path)))

    sys.addaudithook(note)


def _package(module: str, file: Path, root: Path) -> dict[str, Path]:
    """Find what a module imports from where it lies; among installed packages, from its own package alone."""
    top = module.partition(".")[0]
    if top in _VERSIONED:
        return {}
    shared = {Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib", "stdlib", "platstdlib")}
    if root not in shared:
        return _imported(file, root, module, _VERSIONED)
    others = {path.name.partition(".")[0] for path in root.iterdir()} - {top}
    return _imported(file, root, module, others)


def _imported(file: Path, root: Path, name: str, left_out: set[str]) -> dict[str, Path]:
    """Find the files below `root` of the modules that the module `name` imports, directly or not. Nothing is run."""
    found: dict[str, Path] = {}
    waiting = [(name, file)]
    while waiting:
        module, path = waiting.pop()
        for imported in _names(path, module if path.name == "__init__.py" else module.rpartition(".")[0]):
            if imported in found or imported.partition(".")[0] in left_out:
                continue
            if source := _source(root, imported):
                found[imported] = source
                waiting.append((imported, source))
    return found


def _names(file: Path, package: str) -> Iterator[str]:
    """Yield the modules that a file may import, anywhere in it, and the packages above them."""
    try:
        tree = ast.parse(file.read_bytes()) if file.suffix == ".py" else ast.Module([], [])
    except (SyntaxError, ValueError):  # an optional module for another Python, or importing it raises
        return
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _source(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    files = (
        base / "__init__.py",
        *(base.with_name(base.name + suffix) for suffix in importlib.machinery.all_suffixes()),
    )
    return next((file for file in files if name and file.is_file()), None)


def _hash(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _named(module: ModuleType, name: str, subject: object) -> Any:
    try:
        return reduce(getattr, name.split("."), module)
    except AttributeError:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        offered = difflib.get_close_matches(name, [key for key in vars(module) if key[:1] != "_"], n=3) or own[:5]
        advice = f"Did you mean {' or '.join(offered)}?" if offered else ""
        raise UnknownModelError(f"has no {name!r}.", advice, subject=subject) from None


@contextmanager
def _searched_first(folder: Path) -> Iterator[None]:
    """Import from this folder first, then last: a folder `datasets` of a model shall not hide the library later on."""
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a folder of others stays as it is
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_bytecode
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


@contextmanager
def _clear_errors(subject: object, folder: Path | None) -> Iterator[None]:
    """Turn whatever the code raises into an error of one sentence that names the line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise OutsideError(
            f"cannot be imported: {where_raised(error, folder)}.",
            "Correct it, or install what it needs.",
            subject=subject,
        ) from error


def where_raised(error: BaseException, folder: Path | None) -> str:
    """Say what an error is, and in which line of the files below `folder` it was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {one_line(error.msg)} (line {error.lineno} of {Path(error.filename).name})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if folder and _below(frame.filename, folder)]
    place = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    return f"{type(error).__name__}: {one_line(error)}{place}"


def _below(file: str, folder: Path) -> bool:
    return Path(file).is_relative_to(folder) and not Path(file).is_relative_to(Path(__file__).parent)
