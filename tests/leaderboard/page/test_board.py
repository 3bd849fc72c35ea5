import csv
import io
import re
from dataclasses import replace
from urllib.parse import unquote

import gradio as gr
import pytest

from bench.report.table import tables
from leaderboard.page import board


def texts(page):
    return [block.value for block in page.blocks.values() if isinstance(block, gr.Markdown)]


def test_grid_sorts_by_numbers_and_shows_intervals(make):
    """By hand: psnr gives theirs (infinite) 2, dcp 1, api 0; ssim gives api 2, dcp 1, and theirs nothing."""
    records = [
        make("api", {"psnr": 9.5, "ssim": 0.75, "niqe": 3.25}, parameters=1737000, counts={"niqe": 9}, license="MIT"),
        make("dcp", {"psnr": 10.25, "ssim": 0.5, "niqe": 4.0}, parameters=0),
        make("theirs", {"psnr": None}, seconds=None, source="predictions"),
    ]
    [table] = tables(records)
    grid = board.grid(table)
    headers = ["method", "rank", "psnr ↑", "ssim ↑", "niqe ↓", "seconds", "megapixels", "parameters", "licence"]
    assert grid["headers"] == headers
    assert grid["data"] == [
        ["theirs", 1, None, None, None, None, None, None, "none stated"],
        ["dcp", 1, 10.25, 0.5, 4.0, 0.5, 0.48, 0, "none stated"],
        ["api", 1, 9.5, 0.75, 3.25, 0.5, 0.48, 1737000, "mit"],
    ]
    assert grid["metadata"]["display_value"] == [
        ["theirs ‡", "1 (50%)", "∞", "–", "–", "–", "–", "–", "none stated"],
        ["dcp", "1 (50%)", "10.25 [9.25, 12.2]", "0.5 [-0.5, 2.5]", "4 [3, 6]", "0.5", "0.48", "0", "none stated"],
        ["api", "1 (50%)", "9.5 [8.5, 11.5]", "0.75 [-0.25, 2.75]", "3.25 [2.25, 5.25], n = 9", "0.5", "0.48",
         "1,737,000", "mit"],
    ]  # fmt: skip
    bold = [[bool(style) for style in row] for row in grid["metadata"]["styling"]]
    assert [(row, column) for row in range(3) for column in range(9) if bold[row][column]] == [(0, 2), (2, 3)]
    by_one = board.grid(table, ["ssim"])
    assert [row[:2] for row in by_one["data"]] == [["api", 1], ["dcp", 2], ["theirs", 3]]


def test_filters_leave_a_smaller_table_ranked_anew(make):
    [table] = tables(
        [
            make("free", {"psnr": 9.0, "niqe": 5.0}, license="MIT"),
            make("tuned", {"psnr": 10.0, "niqe": 4.0}, license="mit", contaminated=("O-HAZE",)),
            make("bought", {"psnr": 11.0, "niqe": 3.0}, license="proprietary", source="predictions"),
        ]
    )
    assert board.licences(table) == ["mit", "proprietary"]

    def left(*filters):
        part = board.narrowed(table, *filters)
        return [record.method.name for record in part.records], [column.name for column in part.columns]

    assert left(["psnr"], [], []) == (["bought", "tuned", "free"], ["psnr", "niqe"])
    assert left(["niqe"], ["mit"], []) == (["tuned", "free"], ["niqe", "psnr"])
    assert left([], [], [board.OVERLAPPING]) == (["bought", "free"], ["psnr", "niqe"])
    assert left(["psnr"], [], [board.OVERLAPPING, board.PREDICTED]) == (["free"], ["psnr", "niqe"])
    nothing = board.narrowed(table, ["psnr"], ["proprietary"], [board.PREDICTED])
    assert board.grid(nothing)["data"] == [] and "No method" in board.notes(nothing) and board.exports(nothing) == ""


def test_the_shown_table_is_taken_along_whole(make):
    [table] = tables([make('a, "b" & c', {"psnr": 20.0}, paper="https://arxiv.org/abs/1707.06543")])
    links = dict(re.findall(r"download='([^']+)' href='data:[^,]+,([^']+)'", board.exports(table)))
    assert list(links) == [f"sample-native-v1.{suffix}" for suffix in ("csv", "tex", "md", "bib")]
    [row] = csv.DictReader(io.StringIO(unquote(links["sample-native-v1.csv"])))
    assert (row["method"], float(row["psnr"]), row["contaminated"]) == ('a, "b" & c', 20.0, "")
    assert "eprint = {1707.06543}" in unquote(links["sample-native-v1.bib"])


def test_notes_name_what_was_measured(make):
    [table] = tables([make("api", {"psnr": 20.0}, failures=2)])
    notes = board.notes(table)
    for words in ("10 images, 6 of them", "native-v1", "on a processor", "api (2)", "bootstrap interval"):
        assert words in notes


def test_no_record_takes_the_place_of_another_table(make, tmp_path):
    """A stranger's record may name the data set and the fingerprint of others, and other counts."""
    for method in ("a", "b"):
        make(method, {"psnr": 20.0}).write(tmp_path)
    theirs = make("0", {"psnr": 20.0})
    replace(theirs, dataset=replace(theirs.dataset, samples=1, pairs=1)).write(tmp_path)
    boards = board.Boards(tmp_path)
    [table] = [table for group in boards.tables.values() for table in group.values()]
    assert [record.method.name for record in table.records] == ["a", "b"] and table.dataset.samples == 10


def test_errors_on_the_page_hold_no_folder_of_the_server(make, tmp_path):
    for method in ("a", "b"):
        path = make(method, {"psnr": 20.0}).write(tmp_path / "results")
    path.with_suffix(".parquet").mkdir()
    with gr.Blocks(analytics_enabled=False) as page:
        board.leaderboard(tmp_path / "results")
    [verdict] = [text for text in texts(page) if "parquet" in (text or "")]
    assert "native-v1.parquet is a folder" in verdict and str(tmp_path) not in str(page.get_config_file())
    compare = next(function.fn for function in page.fns.values() if function.name == "compare")
    assert compare("sample", "native-v1", "b", "b", "psnr")[0].startswith(
        r"b\_\_sample\_\_native-v1.parquet is a folder"
    )
    for choices in (("sample", "native-v1", "a", "nobody"), (["sample"], "native-v1", "a", "b"), ("x", None, "a", "b")):
        with pytest.raises(gr.Error, match="The board has no such entry"):
            compare(*choices, "psnr")


def test_page_without_results_says_so(tmp_path):
    with gr.Blocks(analytics_enabled=False) as page:
        board.leaderboard(tmp_path)
    assert ["no results yet" in text for text in texts(page)] == [True]


def test_page_shows_records_without_a_time(make, tmp_path):
    make("theirs", {"psnr": 20.0}, seconds=None).write(tmp_path)
    with gr.Blocks(analytics_enabled=False) as page:
        board.leaderboard(tmp_path)
    shown = {block.elem_id: block.value for block in page.blocks.values() if isinstance(block, gr.Dataframe | gr.Image)}
    assert "theirs" in str(shown["methods"]) and shown["figure"] is None
    assert None not in {block.elem_id for block in page.blocks.values() if isinstance(block, gr.Dropdown)}


def test_training_sets_that_overlap_are_marked_and_named(make):
    [table] = tables([make("tuned", {"psnr": 20.0}, contaminated=("O-HAZE",)), make("clean", {"psnr": 19.0})])
    assert [row[0] for row in board.grid(table)["metadata"]["display_value"]] == ["tuned †", "clean"]
    assert "‡" not in board.notes(table)
    assert "† Trained on data that overlaps this set: tuned (O-HAZE)." in board.notes(table)
