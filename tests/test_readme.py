"""The documents: their examples run or parse, their links lead somewhere."""

import argparse
import io
import re
import runpy
import shlex
import sys
import tomllib
from importlib.util import find_spec
from itertools import chain, takewhile
from pathlib import Path

import pytest
from PIL import Image
from typer.core import TyperCommand

import dehaze.memory
from bench.record import RESULTS

ROOT = RESULTS.parents[1]
SAMPLE = ROOT / "bench" / "sample"
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/lab-notes/*.md")),
    *sorted(ROOT.glob("dehaze/weights/*/README.md")),
    *sorted(ROOT.glob("bench/**/README.md")),
    *sorted(ROOT.glob("tests/**/README.md")),
]
HISTORY = "lab-notes"  # its commands are those of its time
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`\n]*python -m [^`\n]*)`(?!`)")
PATH = re.compile(r"`((?:bench|dehaze|docs|leaderboard|tests)/[a-z0-9_./-]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Parsed(BaseException):
    """A command line was understood; nothing has run."""


def text(path):
    return path.read_text(encoding="utf-8")


def name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path, language):
    return [code for found, code in BLOCK.findall(text(path)) if found == language]


def commands(path):
    """List the calls of our modules: module and arguments."""
    lines = chain(*(code.splitlines() for code in blocks(path, "bash")), INLINE.findall(text(path)))
    for line in lines:
        words = shlex.split(line, comments=True)
        while "-m" in words:
            module, *words = words[words.index("-m") + 1 :]
            if module.partition(".")[0] in ("dehaze", "bench", "leaderboard"):
                yield module, tuple(takewhile(lambda word: word not in ("|", "&&"), words))


COMMANDS = [
    pytest.param(module, arguments, id=f"{name(path)}: {module} {' '.join(arguments)}")
    for path in DOCUMENTS
    if HISTORY not in path.parts
    for module, arguments in dict.fromkeys(commands(path))
]
EXAMPLES = [
    pytest.param(code, id=name(path))
    for path in DOCUMENTS
    if HISTORY not in path.parts
    for code in blocks(path, "python")
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    for target, source in {
        "photo.jpg": "real/tea-gardens.jpg",
        "hazy.jpg": "real/tea-gardens.jpg",
        "large.jpg": "real/fog-tree.jpg",
        "clear.jpg": next(SAMPLE.glob("clear/*.jpg")).relative_to(SAMPLE),
    }.items():
        with Image.open(SAMPLE / source) as image:
            image.crop((0, 0, 400, 400)).save(tmp_path / target)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("code", EXAMPLES)
def test_python_examples_run(code, files):
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    exec(compile(code, "example", "exec"), {})
    for path, content in before.items():
        assert path == "clear.jpg" or Path(path).read_bytes() == content


@pytest.mark.parametrize(("module", "arguments"), COMMANDS)
def test_commands_parse(module, arguments, monkeypatch, capsys, tmp_path):
    if not arguments:
        assert find_spec(module)
        return
    (tmp_path / "run.toml").write_text("".join(blocks(ROOT / "docs" / "train.md", "toml")))
    arguments = [str(tmp_path / word) if word == "run.toml" else word for word in arguments]
    parse = argparse.ArgumentParser.parse_args

    def parsed(*_, **__):
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda *given: parsed(parse(*given)))
    monkeypatch.setattr(TyperCommand, "invoke", parsed)
    monkeypatch.setattr(dehaze.memory, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    except Parsed:
        return
    except SystemExit as end:
        assert end.code == 0 and arguments == ["--help"], capsys.readouterr().err
    else:
        pytest.fail("the command ran, or parsed nothing")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    without_code = BLOCK.sub("", text(path))
    for link in LINK.findall(without_code):
        if re.match(r"\w+:", link):
            continue
        target, _, section = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), link
        if section:
            anchors = {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text(found))
            }
            assert section in anchors, link


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if HISTORY not in path.parts], ids=name)
def test_paths_in_the_text_exist(path):
    for found in PATH.findall(text(path)):
        assert (ROOT / found).exists(), found


def test_ci_finds_the_test_command():
    line = next(line for line in text(ROOT / "README.md").splitlines() if "-m pytest" in line)
    assert line == "pip install -r requirements.txt -r requirements-dev.txt && python -m pytest"
    assert "pip install -r requirements.txt && python app.py\n" in text(ROOT / "README.md")


def test_requirements_hold_what_the_package_asks_for():
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    lines = text(ROOT / "requirements.txt").splitlines() + text(ROOT / "requirements-dev.txt").splitlines()
    listed = {line.partition("#")[0].strip() for line in lines}
    assert {*project["dependencies"], *chain(*extras.values())} <= listed


def test_the_space_finds_its_settings():
    from huggingface_hub import ModelCard

    settings = ModelCard(text(ROOT / "README.md")).data.to_dict()
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
