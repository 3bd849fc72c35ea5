"""HDF5 files that mean harm, in place of Keras weights: each is refused in one sentence, in little time and memory."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests import bounded
from tests.dehaze.test_convert import KERNELS

pytestmark = pytest.mark.slow

h5py = pytest.importorskip("h5py")

LAYER = "layers/conv2d/vars"
KERNEL = f"{LAYER}/0"
SHAPE = KERNELS["conv2d"]


class Case(NamedTuple):
    """What makes a good file a hostile one, and what its refusal says."""

    change: Callable[[Path], object]
    message: str


def inside(message: str, change: Callable[[Any], object]) -> Case:
    """Change an open file."""

    def opened(file: Path) -> None:
        with h5py.File(file, "r+") as keras:
            change(keras)

    return Case(opened, message)


def instead(path: str, message: str, change: Callable[[Any], object]) -> Case:
    """Put something else at a path; `change` is given the file, from which what was there is gone."""

    def replace(keras: Any) -> None:
        del keras[path]
        change(keras)

    return inside(message, replace)


def array(message: str, **options: Any) -> Case:
    """Put another array at the place of the first kernel."""
    return instead(KERNEL, message, lambda keras: keras.create_dataset(KERNEL, **options))


def stored(dtype: Any, shape: tuple[int, ...] | None = SHAPE) -> Case:
    """Put an array of another data type or shape there, with room in the file for all its values."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    message = rf"{KERNEL} has the shape .*\. This is not a file of DRACO's Keras weights"
    return instead(KERNEL, message, lambda keras: keras.create_dataset(KERNEL, shape, dtype, dcpl=early))


def linked(path: str, link: Any) -> Case:
    def change(keras: Any) -> None:
        keras["other"] = keras[path]
        del keras[path]
        keras[path] = link

    return inside("lies behind a link, which is not followed", change)


def put(keras: Any, path: str, from_path: str) -> None:
    """Let another path lead to an object as well."""
    keras[path] = keras[from_path]


def virtual(keras: Any) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.float32)
    layout[...] = h5py.VirtualSource("/etc/passwd", "values", SHAPE)
    keras.create_virtual_dataset(KERNEL, layout)


def chunk_of_a_gigabyte(keras: Any) -> None:
    options = {"chunks": (3, 3, 3, 10**7), "maxshape": (3, 3, 3, None), "compression": "gzip"}
    keras.create_dataset(KERNEL, SHAPE, np.float32, **options)[...] = 1


def data(content: bytes) -> Case:
    return Case(lambda file: file.write_bytes(content), "cannot be read as a Keras")


def cut(size: int) -> Case:
    return Case(lambda file: os.truncate(file, size), "cannot be read as a Keras|claims more values")


def replaced(by: Callable[[Path], object]) -> Case:
    return Case(lambda file: (file.unlink(), by(file)), "does not exist")


ELSEWHERE = f"{KERNEL} is in chunks or another file"
CLAIMS = f"{KERNEL} claims more values than the file holds"
MISSING = f"There is no {KERNEL}"
NO_ARRAY = f"{KERNEL} is not an array"
HUGE = (277, 277, 1000, 1000)  # 286 GiB
DATA_TYPES = {
    "texts": h5py.string_dtype(),
    "texts of 4 letters": "S4",
    "arrays of any length": h5py.vlen_dtype(np.float32),
    "arrays": np.dtype(("f4", 3)),
    "references": h5py.ref_dtype,
    "references to regions": h5py.regionref_dtype,
    "records": np.dtype([("a\n" * 999, "f4"), ("b", "f4")]),
    "truths": bool,
    "names": h5py.enum_dtype({"a": 0}),
    "whole numbers": "i4",
    "half precision": "f2",
    "double precision": "f8",
    "big-endian": ">f4",
    "complex numbers": "c8",
    "bytes": "V4",
}
SHAPES = {
    "nothing": None,
    "no rows": (0, *SHAPE[1:]),
    "32 dimensions": (1,) * 28 + SHAPE,
    "flat": (864,),
    "transposed": SHAPE[::-1],
    "kernel of another layer": KERNELS["conv2d_7"],
}
HOSTILE = {
    "external link to an array": linked(KERNEL, h5py.ExternalLink("/etc/passwd", "/values")),
    "external link to a group": linked("layers", h5py.ExternalLink("/dev/zero", "/")),
    "external link to itself": linked(LAYER, h5py.ExternalLink("draco.weights.h5", f"/{LAYER}")),
    "soft link": linked(KERNEL, h5py.SoftLink("/other")),
    "soft link to a group": linked("layers/conv2d", h5py.SoftLink("/other")),
    "soft link to itself": linked(LAYER, h5py.SoftLink(f"/{LAYER}")),
    "soft link to nowhere": linked(KERNEL, h5py.SoftLink("/gone")),
    "group that holds itself": instead("layers/conv2d", MISSING, lambda keras: put(keras, "layers/conv2d", "layers")),
    "group for an array": instead(KERNEL, NO_ARRAY, lambda keras: put(keras, KERNEL, "layers")),
    "array for a group": instead(LAYER, MISSING, lambda keras: put(keras, LAYER, "layers/dense/vars/0")),
    "data type for an array": instead(KERNEL, NO_ARRAY, lambda keras: keras.__setitem__(KERNEL, np.dtype("f4"))),
    "no such array": instead(KERNEL, MISSING, lambda _: None),
    "no such group": instead("layers", MISSING, lambda _: None),
    "values in another file": array(ELSEWHERE, shape=SHAPE, dtype="f4", external=[("/etc/passwd", 0, 3456)]),
    "values in an endless file": array(ELSEWHERE, shape=SHAPE, dtype="f4", external=[("/dev/zero", 0, 3456)]),
    "values of another file's array": instead(KERNEL, ELSEWHERE, virtual),
    "compressed": array(ELSEWHERE, data=np.zeros(SHAPE, "f4"), compression="gzip"),
    "compressed chunk of a gigabyte": instead(KERNEL, ELSEWHERE, chunk_of_a_gigabyte),
    "checksums": array(ELSEWHERE, data=np.zeros(SHAPE, "f4"), fletcher32=True),
    "chunks": array(ELSEWHERE, data=np.zeros(SHAPE, "f4"), chunks=True),
    "chunks of 286 GiB": array(ELSEWHERE, shape=HUGE, dtype="f4", chunks=True),
    "286 GiB": array(CLAIMS, shape=HUGE, dtype="f4"),
    "an exabyte": array(CLAIMS, shape=(2**29, 2**29), dtype="f4"),
    "no values": array(CLAIMS, shape=SHAPE, dtype="f4"),
    "one value": array(f"{KERNEL} has the shape ", data=np.float32(0)),
    "one value for all": array(CLAIMS, shape=SHAPE, dtype="f4", fillvalue=1),
    **{name: stored(dtype) for name, dtype in DATA_TYPES.items()},
    **{name: stored("f4", shape) for name, shape in SHAPES.items()},
    "no bytes": cut(0),
    "cut in the first block": cut(50),
    "cut in the groups": cut(5000),
    "cut in the values": cut(300_000),
    "noise": data(np.random.default_rng(0).bytes(100_000)),
    "signature alone": data(b"\x89HDF\r\n\x1a\n"),
    "signature and noise": data(b"\x89HDF\r\n\x1a\n" + np.random.default_rng(0).bytes(100_000)),
    "archive of Keras": data(b"PK\x03\x04" + bytes(1000)),
    "folder": replaced(lambda file: file.mkdir()),
    "dangling": replaced(lambda file: file.symlink_to("gone")),
    "pipe": replaced(lambda file: os.mkfifo(file)),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, bounded.Outcome]:
    """Write a good file and the hostile ones, and convert each."""
    good = tmp_path_factory.mktemp("good") / "draco.weights.h5"
    with h5py.File(good, "w") as keras:
        for layer, shape in KERNELS.items():
            keras[f"layers/{layer}/vars/0"] = np.zeros(shape, np.float32)
            keras[f"layers/{layer}/vars/1"] = np.zeros(shape[2 if "depth" in layer else -1], np.float32)
    calls = {"good": ["draco", str(good)]}
    for name, case in HOSTILE.items():
        file = Path(shutil.copy(good, tmp_path_factory.mktemp("hostile")))
        case.change(file)
        calls[name] = ["draco", str(file)]
    return bounded.run("tests.dehaze.test_convert_hostile:read", calls)


def read(name: str, file: str) -> None:
    from dehaze.convert import read_keras

    read_keras(name, Path(file))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(outcomes, name):
    outcome = outcomes[name]
    assert outcome.error == "WeightsError", outcome
    assert re.search(HOSTILE[name].message, outcome.message), outcome
    assert outcome.message.isprintable() and len(outcome.message) < 700, outcome
    assert outcome.seconds < 5 and outcome.megabytes < 1000, outcome


def test_a_good_one_is_read_within_the_same_bounds(outcomes):
    assert outcomes["good"].error is None, outcomes["good"]
