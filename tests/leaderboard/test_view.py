import gradio as gr

from bench.report.table import tables
from leaderboard import view


def texts(page):
    return [block.value for block in page.blocks.values() if isinstance(block, gr.Markdown)]


def test_grid_sorts_by_numbers_and_shows_intervals(make):
    records = [
        make("api", {"psnr": 9.5, "niqe": 3.25}, parameters=1737000, counts={"niqe": 9}),
        make("dcp", {"psnr": 10.25, "niqe": 4.0}, parameters=0),
        make("theirs", {"psnr": None}, seconds=None),
    ]
    [table] = tables(records)
    grid = view.grid(table)
    assert grid["headers"] == ["method", "psnr ↑", "niqe ↓", "seconds", "megapixels", "parameters"]
    assert grid["data"] == [
        ["theirs", None, None, None, None, None],
        ["dcp", 10.25, 4.0, 0.5, 0.48, 0],
        ["api", 9.5, 3.25, 0.5, 0.48, 1737000],
    ]
    assert grid["metadata"]["display_value"] == [
        ["theirs", "∞", "–", "–", "–", "–"],
        ["dcp", "10.25 [9.25, 12.2]", "4 [3, 6]", "0.5", "0.48", "0"],
        ["api", "9.5 [8.5, 11.5]", "3.25 [2.25, 5.25], n = 9", "0.5", "0.48", "1,737,000"],
    ]
    bold = [[bool(style) for style in row] for row in grid["metadata"]["styling"]]
    assert [(row, column) for row in range(3) for column in range(6) if bold[row][column]] == [(0, 1)]


def test_notes_name_what_was_measured(make):
    [table] = tables([make("api", {"psnr": 20.0}, failures=2)])
    notes = view.notes(table)
    for words in ("10 images, 6 of them", "native-v1", "on a processor", "api (2)", "bootstrap interval"):
        assert words in notes


def test_page_without_results_says_so(tmp_path):
    with gr.Blocks(analytics_enabled=False) as page:
        view.leaderboard(tmp_path)
    assert ["no results yet" in text for text in texts(page)] == [True]


def test_page_shows_records_without_a_time(make, tmp_path):
    make("theirs", {"psnr": 20.0}, seconds=None).write(tmp_path)
    with gr.Blocks(analytics_enabled=False) as page:
        view.leaderboard(tmp_path)
    assert ["theirs" in str(block.value) for block in page.blocks.values() if isinstance(block, gr.Dataframe)] == [True]
    assert [block.value for block in page.blocks.values() if isinstance(block, gr.Image)] == [None]


def test_training_sets_that_overlap_are_marked_and_named(make):
    [table] = tables([make("tuned", {"psnr": 20.0}, contaminated=("O-HAZE",)), make("clean", {"psnr": 19.0})])
    assert [row[0] for row in view.grid(table)["metadata"]["display_value"]] == ["tuned †", "clean"]
    assert "† Trained on data that overlaps this set: tuned (O-HAZE)." in view.notes(table)
