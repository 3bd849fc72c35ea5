"""Tables in documents come from the records."""

import re
import shutil

import pytest
from typer.testing import CliRunner

from bench.errors import RecordError
from bench.record import RESULTS, read_folder
from leaderboard import figures
from leaderboard.cli import app

NAMES = [*figures.TABLES, "card api"]


@pytest.fixture(scope="module")
def records():
    return list(read_folder(RESULTS)[0].values())


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A copy with a README, a doc and a card, whose tables are stale."""
    for name, path in zip(
        NAMES, ("README.md", "docs/a.md", "docs/b/c.md", "dehaze/weights/api/README.md"), strict=True
    ):
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"Before.\n\n<!-- figures: {name} -->\n| typed |\n<!-- /figures -->\n\nAfter.\n")
    monkeypatch.setattr(figures, "REPOSITORY", tmp_path)
    monkeypatch.setattr(figures.documents, "__defaults__", (tmp_path,))
    return tmp_path


def test_the_tables_of_the_repository_are_those_of_the_records(records):
    assert not list(figures.stale(figures.documents(), records)), "run 'python -m leaderboard figures'"


def test_stale_tables_are_named_and_then_written(repository):
    checked = CliRunner().invoke(app, ["figures", "--check"])
    assert checked.exit_code == 1
    assert re.findall(r"stale: (\S+)", checked.output) == [
        "README.md", "docs/a.md", "docs/b/c.md", "dehaze/weights/api/README.md",
    ]  # fmt: skip
    assert "typed" in (repository / "README.md").read_text()
    assert CliRunner().invoke(app, ["figures"]).exit_code == 0
    assert CliRunner().invoke(app, ["figures", "--check"]).exit_code == 0
    for path in figures.documents(repository):
        text = path.read_text()
        assert "typed" not in text and text.startswith("Before.\n\n<!-- figures: ") and text.endswith("\n\nAfter.\n")


def test_a_cell_is_the_mean_of_the_record(records):
    [record] = [one for one in records if one.stem == "api__o-haze-3__long800-v1"]
    psnr, ssim = record.metrics["psnr"].mean, record.metrics["ssim"].mean
    header, _, *rows = figures.table("reference", records).splitlines()
    [row] = [row for row in rows if row.startswith("| api |")]
    column = header.split(" | ").index("O-HAZE (3)")
    assert row.split(" | ")[column] == f"{psnr:.2f} / {ssim:.3f}"


def test_who_lacks_a_set_has_a_dash_and_identical_images_are_infinite(records):
    table = figures.table("reference", records)
    [identity] = [row for row in table.splitlines() if row.startswith("| identity |")]
    [aod] = [row for row in table.splitlines() if row.startswith("| AOD-Net |")]
    assert identity.endswith("| ∞ / 1.000 |") and aod.endswith("| – | – | – |")
    assert "RIDCP" not in table  # it has no set with clear images


def test_models_come_before_predictions(records):
    rows = [row.split(" | ")[0][2:] for row in figures.table("no-reference", records).splitlines()[2:]]
    assert rows.index("dcp") < rows.index("api") < rows.index("GCANet") < rows.index("RIDCP")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- figures: reference -->\n| 1 |\n", "has no '<!-- /figures -->'"),
        ("<!-- figures: reference -->\n<!-- figures: speed -->\n<!-- /figures -->\n", "has no '<!-- /figures -->'"),
        ("<!-- figures: sped -->\n<!-- /figures -->\n", "no table 'sped'.*reference, no-reference, speed, card MODEL"),
        ("<!-- figures: card nobody -->\n<!-- /figures -->\n", "no record of the model nobody"),
    ],
)
def test_a_malformed_marker_is_refused_with_its_document(records, tmp_path, text, words):
    path = tmp_path / "doc.md"
    path.write_text(text)
    with pytest.raises(RecordError, match=words) as caught:
        figures.stale([path], records)
    assert str(path) in str(caught.value)


def test_a_marker_within_a_line_is_text(records):
    text = "Write `<!-- figures: NAME -->` and `<!-- /figures -->`.\n"
    assert figures.rewrite(text, records) == text


def test_damaged_records_write_nothing(repository, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for path in RESULTS.glob("dcp__sample__*"):
        shutil.copy(path, results)
    (results / "broken.json").write_text("{}")
    done = CliRunner().invoke(app, ["figures", "--results", str(results)])
    assert done.exit_code != 0 and "broken.json" in done.output
    assert "typed" in (repository / "README.md").read_text()
