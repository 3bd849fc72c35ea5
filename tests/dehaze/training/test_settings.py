"""Values of a recipe are set by name, from the command line or from a file."""

import json
from dataclasses import replace
from functools import partial

import pytest
from typer.testing import CliRunner

from dehaze.cli import app
from dehaze.haze import HazeMixture, RendererConfig
from dehaze.training.recipes import RECIPES
from dehaze.training.settings import parse, set_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps=20", ("steps", 20)),
        ("learning_rate = 1e-3", ("learning_rate", 0.001)),
        ("renderer.beta=[0.5, 2]", ("renderer.beta", [0.5, 2])),
        ('freeze=["encoder.*"]', ("freeze", ["encoder.*"])),
        ("best=restored", ("best", "restored")),
    ],
)
def test_values_are_read_as_toml_or_as_text(text, expected):
    assert parse(text) == expected


def test_a_value_is_set_where_its_name_points():
    recipe = RECIPES.get("draco")
    assert set_value(recipe, "steps", 20) == replace(recipe, steps=20)
    assert set_value(recipe, "freeze", ["a.*", "b"]).freeze == ("a.*", "b")
    assert set_value(recipe, "renderer.beta", [0.5, 2]).renderer == RendererConfig(beta=(0.5, 2))
    mixed = set_value(RECIPES.get("api"), "renderer.jpeg_share", 0.0).renderer
    assert isinstance(mixed, HazeMixture) and {kind.jpeg_share for _, kind in mixed.kinds} == {0.0}
    assert [share for share, _ in mixed.kinds] == [share for share, _ in RECIPES.get("api").renderer.kinds]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("step", 20, "did you mean steps"),
        ("network", "api", "is no value of a recipe"),
        ("steps", 2.5, "steps is 2.5"),
        ("steps", "many", "steps is 'many'"),
        ("renderer", 3, "is no value"),
        ("renderer.beta", [0.5], "beta is"),
        ("renderer.haze", 1, "is no value of a recipe"),
        ("steps.more", 1, "is no value of a recipe"),
    ],
)
def test_what_does_not_fit_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        set_value(RECIPES.get("draco"), name, value)


def test_a_text_without_a_key_is_explained():
    with pytest.raises(ValueError, match="is not KEY=VALUE"):
        parse("steps")


@pytest.fixture
def settings(data, tmp_path, monkeypatch):
    """Run the command with a file and options; return its settings, without training."""
    monkeypatch.setattr("dehaze.training.loop.find_sources", lambda *_: (_ for _ in ()).throw(ValueError("stop here")))
    taken = {}
    monkeypatch.setattr(
        "dehaze.training.settings.describe", lambda recipe, **given: taken.update(recipe=recipe, **given)
    )
    return partial(_settings, taken, tmp_path)


def _settings(taken, folder, file, *options):
    (folder / "run.toml").write_text(file)
    result = CliRunner().invoke(app, ["train", "--config", str(folder / "run.toml"), *map(str, options)])
    if "stop here" not in result.output:
        raise AssertionError(result.output)
    return taken


def test_a_file_names_options_and_values(settings, tmp_path):
    file = (
        'recipe = "draco"\npairs = "mine"\nsteps = 30\nfreeze = ["a.*"]\nema-decay = 0.9\n[renderer]\nbeta = [1, 2]\n'
    )
    taken = settings(file, "--steps", 40, "--set", "max_gradient_norm=0.5", "--output", tmp_path / "run")
    recipe = taken["recipe"]
    assert (recipe.model, recipe.steps, recipe.freeze, recipe.ema_decay) == ("draco", 40, ("a.*",), 0.9)
    assert recipe.renderer.beta == (1, 2) and recipe.max_gradient_norm == 0.5
    assert str(taken["pairs"]) == "mine" and taken["card"]["name"] == "draco"


@pytest.mark.parametrize(
    ("file", "message"),
    [("steps = ", "cannot be read"), ("stepps = 3", "did you mean steps"), ("steps = 'x'", "steps")],
)
def test_a_file_that_does_not_fit_is_explained(tmp_path, file, message):
    (tmp_path / "run.toml").write_text(f'recipe = "draco"\npairs = "mine"\n{file}\n')
    result = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "run.toml")])
    assert result.exit_code and message in " ".join(result.output.replace("│", "").split()), result.output


def test_a_push_needs_a_licence_and_a_model_that_loads(tmp_path):
    run = partial(CliRunner().invoke, app)
    result = run(["train", "--recipe", "api", "--pairs", str(tmp_path), "--push", "org/name"])
    assert result.exit_code == 2 and "--push needs --license" in result.output
    result = run(["train", "--recipe", "ahg", "--data", str(tmp_path), "--push", "org/name", "--license", "mit"])
    assert result.exit_code == 2 and "ahg is no model that dehaze.load knows" in " ".join(result.output.split())


def test_a_push_goes_to_a_repository():
    command = ["train", "--recipe", "api", "--pairs", "x", "--license", "mit", "--push", "notaname"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "is called ORG/NAME" in " ".join(result.output.replace("│", "").split())


def test_settings_are_kept_whole(tmp_path):
    from dehaze.training import settings

    described = settings.describe(RECIPES.get("api"), data=tmp_path, start="shipped", precision="fp32")
    assert json.loads(json.dumps(described)) == described
    flat = settings.flat(described)
    assert flat["start"] == "shipped" and flat["steps"] == 8000 and flat["data"] == str(tmp_path)
