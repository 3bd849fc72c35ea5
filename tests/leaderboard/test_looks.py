"""Both looks of a model on the board: rows of their own, in tables, ranks, cards and checks."""

import pytest
from huggingface_hub import ModelCard

from bench.record import read, read_folder
from bench.report import render
from bench.report.table import tables
from leaderboard import card, figures, hub, rank
from leaderboard.page import board
from leaderboard.submission import check

# SHA-256 of b"weights", as sha256sum prints it.
WEIGHTS = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
NAMES = {"mine": ("faithful", {}), "mine (photo)": ("photo", {}), "mine (skies 0)": ("faithful", {"skies": 0.0})}


@pytest.fixture
def looks(enter, tmp_path):
    """Write records of a model in both looks, and with an adjustment switched off; return their folder."""
    for offset, (name, (look, adjustments)) in enumerate(NAMES.items()):
        values = {"psnr": lambda i, offset=offset: 14 - offset + 0.25 * i, "niqe": lambda i: 4 + 0.25 * (i % 5)}
        about = {"source": "model", "weights_sha256": WEIGHTS, "look": look, "adjustments": adjustments}
        enter(tmp_path / "looks", name, values, **about)
    return tmp_path / "looks"


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    return folder


def records(folder):
    return list(read_folder(folder)[0].values())


def test_each_look_has_a_place_of_its_own(looks):
    [table] = tables(records(looks))
    standings = rank.borda(table, ["psnr"])
    places = {record.method.name: one.place for record, one in zip(table.records, standings, strict=True)}
    assert places == {"mine": 1, "mine (photo)": 2, "mine (skies 0)": 3}
    assert [row[0] for row in board.grid(table, ["psnr"])["data"]] == list(NAMES)


def test_a_table_says_what_the_look_photo_is(looks):
    [table] = tables(records(looks))
    [faithful] = tables([record for record in records(looks) if record.method.look == "faithful"])
    for say in (board.notes, lambda table: render.markdown([table]), lambda table: render.latex([table])):
        assert "(photo): exposed as a camera would have exposed the clear view." in say(table)
        assert "(photo)" not in say(faithful)


def test_tables_of_documents_have_a_row_for_each_look(make):
    found = [
        make(name, {"psnr": psnr, "ssim": 0.5}, dataset="o-haze-3", protocol="long800-v1", look=look, seconds=seconds)
        for name, look, psnr, seconds in (("api (photo)", "photo", 17.0, 0.96), ("api", "faithful", 18.0, 0.48))
    ]
    assert figures.table("reference", found).splitlines()[2:] == [
        "| api | 18.00 / 0.500 |", "| api (photo) | 17.00 / 0.500 |",
    ]  # fmt: skip
    assert figures.seconds_per_megapixel(found) == pytest.approx({"api": 1.0, "api (photo)": 2.0})


def test_a_card_shows_both_looks_and_no_ablation(looks, weights):
    made = ModelCard(card.with_figures("mine", records(looks), weights))
    header, _, *rows = [line for line in made.text.splitlines() if line.startswith("|")]
    assert header.startswith("| method | data set | protocol | images | psnr ↑ |")
    means = {record.method.name: f"{record.metrics['psnr'].mean:.4g}" for record in records(looks)}
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [(row[0], row[4].partition(" ")[0]) for row in cells] == [
        (name, means[name]) for name in ("mine", "mine (photo)")
    ]
    assert "(photo): exposed as a camera would" in made.text
    assert sorted(one.metric_name for one in made.data.eval_results) == [
        "niqe ↓", "niqe ↓ (photo)", "psnr ↑", "psnr ↑ (photo)",
    ]  # fmt: skip


def test_a_card_of_one_look_names_no_method(looks, weights):
    alone = [record for record in records(looks) if record.method.look == "faithful"]
    made = card.with_figures("mine", alone, weights)
    assert "| data set | protocol | images |" in made and "(photo)" not in made
    assert figures.table("card mine", alone) in made


def test_a_repository_of_a_model_gets_one_value_a_task(looks):
    assert list(hub.evaluations("mine", records(looks), "org/results")) == [
        ".eval_results/mine__sample__native-v1.yaml"
    ]


def test_looks_of_a_model_may_have_the_same_values(enter, results):
    enter(results, "mine", source="model", look="faithful")
    path = enter(results.with_name("new"), "mine (photo)", source="model", look="photo")
    assert check(path, results).accepted == read(path)
    for about in ({"source": "model"}, {"source": "predictions"}):
        copied = enter(results.with_name("copied"), "copied", **about)
        found = check(copied, results)
        assert found.accepted is None and "these are the values of mine" in found.markdown()
