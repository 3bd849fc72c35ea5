import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.errors import RecordError
from bench.record import RESULTS, select
from bench.report import render, table
from leaderboard import cli

ROOT = Path(cli.__file__).parents[1]


def best(found):
    return {column.name: found.best(column) for column in found.columns}


def names(found):
    return [record.method.name for record in found.records]


def test_the_best_comes_first_and_is_marked_by_direction(make):
    records = [
        make("poor", {"niqe": 3.0, "psnr": 10.0, "ciede2000": 20.0}),
        make("good", {"niqe": 4.0, "psnr": 20.0, "ciede2000": 10.0}),
        make("middling", {"niqe": 5.0, "psnr": 15.0, "ciede2000": 15.0}),
    ]
    [found] = table.tables(records)
    assert [column.name for column in found.columns] == ["psnr", "ciede2000", "niqe"]
    assert names(found) == ["good", "middling", "poor"]
    assert best(found) == {"psnr": {"good"}, "ciede2000": {"good"}, "niqe": {"poor"}}


def test_equals_are_both_best_and_one_alone_is_not(make):
    [found] = table.tables([make("a", {"psnr": 10.0, "ssim": 0.5}), make("b", {"psnr": 10.0})])
    assert best(found) == {"psnr": {"a", "b"}, "ssim": set()}


def test_a_mean_over_fewer_images_is_never_the_best(make):
    records = [
        make("choosy", {"psnr": 30.0}, counts={"psnr": 5}, failures=1),
        make("a", {"psnr": 9.0}),
        make("b", {"psnr": 8.0}),
    ]
    [found] = table.tables(records)
    assert names(found)[0] == "choosy"
    assert best(found) == {"psnr": {"a"}}
    text = render.markdown([found])
    assert "30.00 [29.00, 32.00] (n = 5)" in text
    assert "Failures: choosy (1)." in text


def test_infinite_psnr_is_the_best_and_shown(make):
    [found] = table.tables([make("a", {"psnr": 40.0}), make("perfect", {"psnr": None})])
    assert names(found) == ["perfect", "a"]
    assert "| perfect | **∞** |" in render.markdown([found])


def test_protocols_sets_and_bytes_never_share_a_table(make):
    records = [
        make("a", {"psnr": 10.0}),
        make("b", {"psnr": 11.0}, protocol="long800-v1"),
        make("c", {"psnr": 12.0}, dataset="other"),
        make("d", {"psnr": 13.0}, fingerprint="cd" * 32),
        make("e", {"psnr": 14.0}),
    ]
    found = table.tables(records)
    assert [(one.title, names(one)) for one in found] == [
        ("other, native-v1", ["c"]),
        ("sample, long800-v1", ["b"]),
        ("sample, native-v1", ["e", "a"]),
        ("sample, native-v1", ["d"]),
    ]
    headings = [line for line in render.markdown(found).splitlines() if line.startswith("#")]
    assert headings[2:] == ["### sample, native-v1 (set abababab)", "### sample, native-v1 (set cdcdcdcd)"]


def test_markdown(make):
    records = [
        make("a|b", {"psnr": 20.125, "niqe": 3.0}, parameters=1_550_000),
        make("c", {"psnr": 10.0}, seconds=None, parameters=236_000),
    ]
    assert render.markdown(table.tables(records)) == (
        "### sample, native-v1\n\n"
        "| method | psnr ↑ (dB) | niqe ↓ | seconds | parameters |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| a\\|b | **20.12** [19.12, 22.12] | 3.000 [2.000, 5.000] | 0.5 | 1.55 M |\n"
        "| c | 10.00 [9.00, 12.00] | – | – | 236 k |\n\n"
        "10 images, 6 with a clear one. Mean [95 % bootstrap interval]; ↑ higher, ↓ lower is better. Best in bold.\n"
        "Seconds: median in the network for an image, 0.48 megapixels, a processor, float32, 2 threads."
    )


def test_latex_escapes_and_marks(make):
    text = render.latex(table.tables([make("a_b & 100%", {"fade_refit": 1.0}), make("c", {"fade_refit": 2.0})]))
    assert r"a\_b \& 100\% & \textbf{1.000} [0.000, 3.000] & 0.5 & -- \\" in text
    assert r"fade\_refit $\downarrow$" in text
    assert text.count(r"\begin{tabular}{lrrr}") == text.count(r"\end{tabular}") == 1


def test_csv_holds_full_precision(make):
    records = [make("a, b", {"psnr": 1 / 3}), make("c", {"niqe": 2 / 3}, dataset="other", seconds=None)]
    rows = list(csv.DictReader(io.StringIO(render.as_csv(table.tables(records)))))
    by_method = {row["method"]: row for row in rows}
    assert float(by_method["a, b"]["psnr"]) == 1 / 3
    assert (by_method["a, b"]["psnr_count"], by_method["a, b"]["psnr_infinite"]) == ("6", "0")
    assert by_method["a, b"]["niqe"] == by_method["c"]["psnr"] == by_method["c"]["seconds"] == ""
    assert (by_method["c"]["dataset"], by_method["c"]["protocol"]) == ("other", "native-v1")


def test_json(make):
    records = [make("a", {"psnr": 10.0}), make("b", {"psnr": 20.0}, failures=2)]
    [found] = json.loads(render.as_json(table.tables(records)))
    assert [row["method"]["name"] for row in found["rows"]] == ["b", "a"]
    assert [row["metrics"]["psnr"]["best"] for row in found["rows"]] == [True, False]
    assert found["rows"][0]["failures"] == 2
    assert found["protocol"] == "native-v1"


def test_grid(make):
    [found] = table.tables(
        [make("a", {"psnr": 10.0, "niqe": 3.0}, parameters=7), make("b", {"psnr": None}, seconds=None)]
    )
    headers, rows = found.grid()
    assert headers == ["method", "psnr ↑", "niqe ↓", "seconds", "megapixels", "parameters"]
    assert rows == [["b", None, None, None, None, None], ["a", 10.0, 3.0, 0.5, 0.48, 7]]


@pytest.fixture
def board():
    """Run the command line and return the result."""
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_the_command_chooses(make, board, tmp_path):
    make("a", {"psnr": 10.0}).write(tmp_path)
    make("b", {"psnr": 11.0}, protocol="long800-v1").write(tmp_path)
    make("c", {"psnr": 12.0}, dataset="other").write(tmp_path)

    def methods(*options):
        found = json.loads(board("table", "--results", tmp_path, "--format", "json", *options).stdout)
        return [row["method"]["name"] for one in found for row in one["rows"]]

    assert methods() == ["c", "b", "a"]
    assert methods("--dataset", "sample") == ["b", "a"]
    assert methods("--protocol", "native-v1") == ["c", "a"]
    for form, start in (("md", "### other"), ("latex", "% other"), ("csv", "dataset,")):
        assert board("table", "--results", tmp_path, "--format", form).stdout.startswith(start)


def test_a_broken_record_among_many(make, board, tmp_path):
    make("a", {"psnr": 10.0}).write(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    result = board("table", "--results", tmp_path)
    assert result.exit_code == 1
    assert "| a |" in result.stdout
    assert "left out" in result.stderr and "broken.json is not a result record" in result.stderr


def test_what_is_not_there(make, board, tmp_path):
    result = board("table", "--results", tmp_path / "missing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is not a folder" in result.stderr
    result = board("table", "--results", tmp_path)
    assert result.exit_code == 1
    assert "python -m bench run" in result.stderr
    make("a", {"psnr": 10.0}).write(tmp_path)
    result = board("table", "--results", tmp_path, "--dataset", "smple")
    assert result.exit_code == 1
    assert "There are records of sample under native-v1" in result.stderr
    with pytest.raises(RecordError, match="is not a folder"):
        select(tmp_path / "missing")


def test_the_projects_own_records_make_tables():
    records, broken = select(RESULTS)
    found = table.tables(records.values())
    assert broken == []
    [sample] = [one for one in found if one.dataset.name == "sample"]
    assert {"api", "dcp", "identity"} <= set(names(sample))
    for form in render.FORMATS.values():
        assert form(found)


def test_no_model_is_needed():
    code = "import sys, leaderboard.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    shown = subprocess.run([sys.executable, "-m", "leaderboard", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert "table" in shown.stdout


def test_contamination_is_marked_and_explained_everywhere(make):
    records = [
        make("tuned", {"psnr": 20.0}, contaminated=("O-HAZE", "RESIDE")),
        make("clean", {"psnr": 19.0}),
        make("secret", {"psnr": 18.0}, contaminated=None),
        make("untrained", {"psnr": 17.0}, contaminated=None, parameters=0),
    ]
    found = table.tables(records)
    text = render.markdown(found)
    assert "| tuned † | **20.00**" in text
    assert "| clean | 19.00" in text
    assert "\n† Trained on data that overlaps this set: tuned (O-HAZE, RESIDE).\n" in text
    assert "\nTraining data not stated, or not checked for overlap: secret.\n" in text
    assert r"tuned $^\dagger$ & \textbf{20.00}" in render.latex(found)
    rows = list(csv.DictReader(io.StringIO(render.as_csv(found))))
    assert [row["contaminated"] for row in rows] == ["O-HAZE; RESIDE", "", "unknown", "unknown"]
    [plain] = json.loads(render.as_json(found))
    assert [row["contaminated"] for row in plain["rows"]] == [["O-HAZE", "RESIDE"], [], None, None]
