"""Models from outside the project: how they are found, what they get, what is said where they are wrong."""

import importlib
import os
import sys
import zipfile
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import dehaze
from dehaze import cli, hub, outside
from dehaze.adjust import Adjustments
from dehaze.errors import DehazeError, OutsideError, UnknownModelError
from dehaze.io.photo import read_photo
from dehaze.outside import Interface
from dehaze.page.models import chosen_model
from tests import toy


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The toy in every form, by its name on a command line."""
    folder = tmp_path_factory.mktemp("saved")
    path = toy.write(folder)
    forms = {form: f"{path}:{form}" for form in ("build", "Net", "net", "restore")}
    forms["torchscript"] = f"torchscript:{toy.save_torchscript(folder / 'my.pt')}"
    forms["onnx"] = f"onnx:{toy.save_onnx(folder / 'my.onnx')}"
    return forms


@pytest.fixture
def load(tmp_path):
    """Load `code`, written to a file, as a model."""

    def loaded(code, name="f", **options):
        return outside.load(f"{toy.write(tmp_path, code)}:{name}", device="cpu", **options)

    return loaded


def picture(height=33, width=47):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("form", ["build", "Net", "net", "restore", "torchscript", "onnx"])
def test_every_form_restores_alike(form, saved):
    hazy = torch.from_numpy(picture()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        wanted = toy.module()(hazy)
    dehazer = outside.load(saved[form], device="cpu")
    step = 1 / 255 if form == "restore" else 1e-6  # a function returns 8 bits
    assert (dehazer.restore_tensor(hazy)[0] - wanted).abs().max() <= step
    assert dehazer.weights_sha256 is not None or form == "restore"


def test_an_installed_package_names_a_model(tmp_path, monkeypatch, saved):
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    toy.write(package)
    metadata = tmp_path / "their_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: their_package\nVersion: 1.0\n")
    names = "theirs = their_package.net:build\napi = their_package.net:build\n"
    (metadata / "entry_points.txt").write_text(f"[dehaze.models]\n{names}")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    direct = outside.load("their_package.net:build", device="cpu")
    named = outside.load("theirs", device="cpu")
    assert named.network.config == direct.network.config and named.name == "their_package.net:build"
    assert not outside.is_outside("api")  # the project's own names stay its own
    assert "theirs" in CliRunner().invoke(cli.app, ["list"]).stdout


def test_only_typed_names_run_code(tmp_path):
    """What records, repositories and the page name goes through `dehaze.load`, which runs nothing."""
    path = toy.write(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    script = toy.save_torchscript(tmp_path / "my.pt")
    names = [f"{path}:net", str(path), "net:net", "os:getcwd", f"torchscript:{script}", f"onnx:{path}"]
    for name in names:
        with pytest.raises(DehazeError):
            dehaze.load(name, device="cpu")
        with pytest.raises(Exception, match="model"):
            chosen_model(name)
        config = tmp_path / "repository"
        config.mkdir(exist_ok=True)
        (config / "model.safetensors").write_bytes(b"")
        (config / "config.json").write_text(f'{{"model": "{name}"}}')
        with pytest.raises(DehazeError, match="names the model"):
            hub.find_weights("api", config)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", ["build", "restore", "torchscript", "onnx"])
def test_results_from_outside_are_never_adjusted(form, saved):
    dehazer = outside.load(saved[form], device="cpu", look="faithful")
    assert (dehazer.look, dehazer.adjustments) == (None, Adjustments())
    with pytest.raises(ValueError, match="is a model from outside, whose results are not adjusted"):
        outside.load(saved[form], device="cpu", look="photo")


def test_models_of_the_project_take_the_look():
    for look, expected in ((None, "photo"), ("photo", "photo"), ("faithful", "faithful")):
        assert outside.load("dcp", device="cpu", look=look).look == expected


# What decides the output


def identity(name, **options):
    dehazer = outside.load(name, device="cpu", **options)
    return dehazer.weights_sha256, asdict(dehazer.network.config)


HELPED = "from parts.block import fill\nimport torch\nfrom torch import nn\n"
HELPED += "def build():\n    return nn.Conv2d(3, 3, 1)\ndef f(x):\n    return x * 0 + fill\n"


def test_code_that_changes_changes_the_identity_and_the_output(tmp_path):
    path = toy.write(tmp_path, HELPED)
    (tmp_path / "parts").mkdir()  # without __init__.py, as in many repositories
    block, unrelated = tmp_path / "parts" / "block.py", tmp_path / "unrelated.py"
    block.write_text("fill = 10")
    name, pixels, seen = f"{path}:f", picture(), []
    for change, text, value in (
        (block, "fill = 20", 20),  # of the same size, within the same second
        (path, HELPED.replace("x * 0", "x * 0 + 1"), 21),
        (unrelated, "fill = 3", 21),
        (block, "from .depth import fill", 8),
    ):
        (tmp_path / "parts" / "depth.py").write_text("fill = 7")
        seen.append(identity(name))
        change.write_text(text)
        assert (outside.load(name)(pixels).pixels == value).all()
    seen.append(identity(name))
    (tmp_path / "parts" / "depth.py").write_text("fill = 9")
    seen.append(identity(name))
    assert [one == other for one, other in pairwise(seen)] == [False, False, True, False, False]
    assert not list(tmp_path.rglob("__pycache__"))


def test_two_models_with_parts_of_the_same_name(tmp_path):
    for folder, value in (("one", 10), ("two", 20)):
        (tmp_path / folder / "parts").mkdir(parents=True)
        (tmp_path / folder / "parts" / "block.py").write_text(f"fill = {value}")
        toy.write(tmp_path / folder, HELPED)
    one, two = (outside.load(f"{tmp_path / folder / 'net.py'}:f") for folder in ("one", "two"))
    assert (two(picture()).pixels == 20).all() and (one(picture()).pixels == 10).all()


def test_weights_that_change_change_the_identity(tmp_path):
    module, seen = toy.module(), []
    path = toy.write(tmp_path)
    reads = f"import numpy as np\nfill = np.load({str(tmp_path / 'fill.npy')!r})\ndef f(x):\n    return x * 0 + fill\n"
    (tmp_path / "reads").mkdir()
    reading = toy.write(tmp_path / "reads", reads)
    for value in (1.0, 2.0):
        nn.init.constant_(module.body.bias, value)
        np.save(tmp_path / "fill.npy", np.uint8(value))
        save_file(module.state_dict(), tmp_path / "my.safetensors")
        state = {f"module.{key}": tensor for key, tensor in module.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state}, tmp_path / "my.pth")
        forms = [identity(f"torchscript:{toy.save_torchscript(tmp_path / 'my.pt', module)}")]
        forms += [identity(f"onnx:{toy.save_onnx(tmp_path / 'my.onnx', network=module)}")]
        by_file = [identity(f"{path}:build", weights=tmp_path / name) for name in ("my.safetensors", "my.pth")]
        assert by_file[0] == by_file[1]
        seen.append([*forms, *by_file, identity(f"{reading}:f")])
    assert all(one != other for one, other in zip(*seen, strict=True))


def test_onnx_weights_beside_the_file_count(tmp_path):
    onnx = pytest.importorskip("onnx")
    path, seen = tmp_path / "my.onnx", []
    onnx.save(onnx.load(toy.save_onnx(path)), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    for _ in range(2):
        seen.append(identity(f"onnx:{path}"))
        data = bytearray((tmp_path / "w.bin").read_bytes())
        data[0] ^= 1
        (tmp_path / "w.bin").write_bytes(data)
    assert seen[0] != seen[1]


def test_the_interface_is_part_of_the_identity(saved):
    options = [{}, {"multiple_of": 8}, {"value_range": "11"}, {"channels": "bgr"}]
    seen = [identity(saved["build"], interface=Interface(**option)) for option in options]
    assert all(one != other for place, one in enumerate(seen) for other in seen[:place])


# What a model gets


RECORDS = """
import torch
from torch import nn
class Net(nn.Module):
    def forward(self, x):
        assert x.is_contiguous() and x.dtype == torch.float32 and torch.is_inference_mode_enabled()
        self.seen = x
        return x
net = Net()
got = []
def f(pixels):
    got.append(pixels)
    return pixels
"""


@pytest.mark.parametrize(("name", "factor", "summand"), [("01", 1, 0), ("11", 2, -1), ("255", 255, 0)])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_range_and_channels(name, factor, summand, channels, load):
    pixels = picture()
    dehazer = load(RECORDS, "net", interface=Interface(1, name, channels))
    assert (dehazer(pixels).pixels == pixels).all()
    order = [2, 1, 0] if channels == "bgr" else [0, 1, 2]
    wanted = torch.from_numpy(pixels[..., order].copy()).permute(2, 0, 1)[None] / 255 * factor + summand
    torch.testing.assert_close(dehazer.network.model.seen, wanted, atol=1e-4, rtol=0)


def test_sizes_are_padded_by_mirroring_and_cut_off(load):
    pixels = picture(33, 47)
    dehazer = load(RECORDS, "net", interface=Interface(multiple_of=16))
    assert (dehazer(pixels).pixels == pixels).all()
    seen = dehazer.network.model.seen
    assert seen.shape == (1, 3, 48, 48)
    torch.testing.assert_close(seen[..., 33, :47], seen[..., 31, :47])


def test_a_function_gets_pixels_and_tiles(load):
    pixels = picture(150, 100)
    dehazer = load(RECORDS, "f", interface=Interface(channels="bgr"), tile=64)
    assert np.abs(dehazer(pixels).pixels.astype(int) - pixels).max() <= 1
    got = dehazer.network.model.__globals__["got"]
    assert len(got) > 1 and all(part.dtype == np.uint8 and max(part.shape[:2]) <= 64 for part in got)
    assert (got[0] == pixels[: got[0].shape[0], : got[0].shape[1], ::-1]).all()


@pytest.mark.parametrize("size", [(40, 30), (64, 64), (100, 150), (40, 100)])
def test_onnx_of_a_fixed_size_runs_in_tiles_of_it(size, tmp_path):
    name = f"onnx:{toy.save_onnx(tmp_path / 'fixed.onnx', (64, 64), nn.Hardtanh(0.2, 0.8))}"
    with pytest.raises(OutsideError, match=r"fixed\.onnx takes images of 64×64 px alone\. Give --tile 64\."):
        outside.load(name, device="cpu")
    pixels = picture(*size)
    restored = outside.load(name, device="cpu", tile=64)(pixels).pixels
    assert (restored == pixels.clip(51, 204)).all()


def test_parameters_are_counted_where_torch_sees_them(saved):
    counted = {form: outside.count_parameters(outside.load(name).network) for form, name in saved.items()}
    assert counted == {"build": 84, "Net": 84, "net": 84, "restore": None, "torchscript": 84, "onnx": None}


# What is wrong is said in one sentence


@pytest.mark.parametrize(
    ("code", "name", "says"),
    [
        ("def build(): pass\ndef other(x): pass", "biuld", "has no 'biuld'. Did you mean build?"),
        ("import torch\n\n1 / 0", "f", "ZeroDivisionError: division by zero (line 3 of net.py)"),
        ("def f(x:\n", "f", "SyntaxError: '(' was never closed (line 1 of net.py)"),
        ("import not_installed_here", "f", "ModuleNotFoundError: No module named 'not_installed_here' (line 1 of"),
        ("raise SystemExit('usage: net.py')", "f", "SystemExit: usage: net.py (line 1 of net.py)"),
        ("def f(): raise KeyError('w')", "f", "cannot be called without arguments: KeyError: 'w'"),
        ("class F:\n def __init__(self, a): pass", "F", "cannot be called without arguments: TypeError"),
        ("f = 3", "f", "is or returns a int, neither a module nor a function"),
        ("def f(): return 3", "f", "is or returns a int, neither a module nor a function"),
    ],
)
def test_code_that_cannot_be_used(code, name, says, load):
    with pytest.raises(DehazeError) as caught:
        load(code, name)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return x[..., 1:]", "returns the shape [1, 3, 33, 46] for [1, 3, 33, 47]"),
        ("return x, x", "returns a tuple, not a tensor"),
        ("return (x * 255).byte()", "returns torch.uint8"),
        ("return x / 0", "NaN or infinite"),
        ("return x.log() * 0", "NaN or infinite"),
        ("return x * 255", "returns values from 0 to 255, where 0 to 1 are meant"),
        ("return x - 1", "returns values from -1 to 0, where 0 to 1 are meant"),
        ("raise ValueError('no\\nmultiple')", "raises ValueError: no multiple for an image of 47×33 px"),
    ],
)
def test_outputs_that_are_no_image(body, says, load):
    code = f"from torch import nn\nclass F(nn.Module):\n  def forward(self, x):\n    {body}\n"
    with pytest.raises(OutsideError) as caught:
        load(code, "F")(picture())
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("x[1:]", "returns an array uint8 [32, 47, 3]. It must return an array uint8 [33, 47, 3]"),
        ("x / 255", "returns an array float64 [33, 47, 3]"),
        ("None", "returns NoneType"),
    ],
)
def test_functions_that_return_no_image(body, says, load):
    with pytest.raises(OutsideError) as caught:
        load(f"def f(x): return {body}")(picture())
    assert says in str(caught.value)


def test_a_slight_overshoot_is_clipped(load):
    code = "from torch import nn\nclass F(nn.Module):\n  def forward(self, x):\n    return x * 1.2 - 0.1\n"
    assert load(code, "F")(picture()).pixels.max() == 255


def write_checkpoint(path):
    torch.save({"weight": torch.zeros(2)}, path)


def write_pickle(path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(path) + ".ran",)

    torch.save(Evil(), path)


def write_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "a")


def write_cut(path):
    toy.save_torchscript(path)
    path.write_bytes(path.read_bytes()[:-900])


def write_half_damaged(path):
    toy.save_torchscript(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content[:-9] if name.endswith(".py") else content)


@pytest.mark.parametrize(
    ("kind", "write", "says"),
    [
        ("torchscript", write_checkpoint, "it is a checkpoint, or damaged"),
        ("torchscript", write_pickle, "it is a checkpoint, or damaged"),
        ("torchscript", write_zip, "it is something else, or damaged"),
        ("torchscript", write_cut, "it is something else, or damaged"),
        ("torchscript", write_half_damaged, "cannot be read as TorchScript"),
        ("torchscript", lambda path: path.write_bytes(b""), "it is something else, or damaged"),
        ("torchscript", lambda path: None, "does not exist"),
        ("onnx", write_zip, "cannot be read as ONNX"),
        ("onnx", lambda path: path.write_bytes(b""), "cannot be read as ONNX"),
        ("onnx", lambda path: None, "does not exist"),
        ("onnx", lambda path: toy.save_onnx(path, (64, 80)), "takes images of 80×64 px alone. Export it with a free"),
        ("onnx", lambda path: toy.save_onnx(path, shape=(1, 1, 8, 8), network=nn.ReLU()), "takes tensor(float) of"),
    ],
)
def test_files_that_are_no_model(kind, write, says, tmp_path):
    path = tmp_path / "my.file"
    write(path)
    with pytest.raises(DehazeError) as caught:
        outside.load(f"{kind}:{path}", device="cpu")
    assert says in str(caught.value) and "my.file" in str(caught.value) and "\n" not in str(caught.value)
    assert not path.with_name("my.file.ran").exists()


def test_weights_that_do_not_fit(tmp_path):
    name = f"{toy.write(tmp_path)}:build"
    cases = {"runs code": write_pickle, "does not fit net.py:build": write_checkpoint, "does not exist": lambda _: None}
    for says, write in cases.items():
        path = tmp_path / f"{len(says)}.pth"
        write(path)
        with pytest.raises(OutsideError, match=says.replace("runs", "would run")):
            outside.load(name, path, "cpu")
    assert not list(tmp_path.glob("*.ran"))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("{folder}/none.py:build", {}, "none.py does not exist"),
        ("{folder}/net.py", {}, "Give {folder}/net.py:NAME"),
        ("my.onnx", {}, "Give onnx:my.onnx"),
        ("no_such_package.net:build", {}, "No module is called 'no_such_package.net'"),
        ("progressive:none", {}, "No model is called 'progressive:none'"),
        ("api", {"interface": Interface(multiple_of=8)}, "is a model of the project"),
        ("{folder}/net.py:restore", {"weights": "x.pt"}, "is a function, which loads its weights itself"),
        ("{folder}/net.py:restore", {"interface": Interface(value_range="11")}, "which gets uint8"),
        ("{folder}/net.py:restore", {"dtype": "float16"}, "chooses its own data type"),
        ("{folder}/net.py:build", {"tile": 8}, "a tile of 8 px is too small"),
    ],
)
def test_names_and_options_that_do_not_fit(name, options, says, tmp_path):
    toy.write(tmp_path)
    with pytest.raises((DehazeError, ValueError)) as caught:
        outside.load(name.format(folder=tmp_path), device="cpu", **options)
    assert says.format(folder=tmp_path) in str(caught.value)


def test_without_onnxruntime(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OutsideError, match=r"needs onnxruntime\. Install it: pip install 'dehaze\[onnx\]'"):
        outside.load(saved["onnx"])


def test_the_command_line(saved, tmp_path):
    (tmp_path / "in.png").write_bytes(b"")
    dehaze.io.photo.read_photo(picture()).save(tmp_path / "in.png")
    outputs = []
    for form in ("build", "torchscript", "onnx"):
        output = tmp_path / f"{form}.png"
        made = CliRunner().invoke(
            cli.app, ["run", str(tmp_path / "in.png"), "--model", saved[form], "--output", str(output)]
        )
        assert made.exit_code == 0, made.output
        outputs.append(read_photo(output).pixels)
    assert np.abs(outputs[0].astype(int) - outputs).max() <= 1
    wrong = CliRunner().invoke(cli.app, ["run", str(tmp_path / "in.png"), "--model", saved["build"], "--range", "1"])
    assert wrong.exit_code == 2 and "there is no range '1'" in wrong.stderr
    unknown = CliRunner().invoke(cli.app, ["run", str(tmp_path / "in.png"), "--model", saved["build"] + "x"])
    assert unknown.exit_code == 2 and "Did you mean build?" in unknown.stderr


def test_a_missing_file_is_an_unknown_model(tmp_path):
    with pytest.raises(UnknownModelError):
        outside.load(f"onnx:{tmp_path}")
