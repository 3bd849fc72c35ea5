import io
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench import cli, record
from bench.errors import DatasetError, DrawingError
from bench.record import RESULTS, Failure, Row
from bench.report import figures, page, pictures, table


@pytest.fixture
def bench():
    """Run the command line and return the result."""
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Score two methods on four pairs, and keep the images: the folder holds set/, out/ and pictures/."""
    root = tmp_path_factory.mktemp("report")
    for number in range(4):
        for kind, level in (("hazy", 120 + 30 * number), ("clear", 90)):
            path = root / "set" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = np.linspace(level // 2, level, 40 * 30).reshape(30, 40, 1)
            Image.fromarray(np.repeat(grey, 3, axis=2).astype(np.uint8)).save(path)
    what = ["--dataset", f"folder:{root / 'set'}", "--metric", "psnr", "--metric", "ssim", "--device", "cpu"]
    where = ["--output", root / "out", "--save-images", root / "pictures"]
    arguments = ["run", "--model", "identity", "--model", "dcp", *what, *where]
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return root


def test_compare_prints_a_verdict_and_the_exit_code_is_that_of_the_regression(bench, results):
    out = ["--results", results / "out"]
    same = bench("compare", "dcp", "dcp", *out, "--tolerance", "psnr=0")
    assert same.exit_code == 0, same.output
    header, columns, psnr, ssim, note, *_ = same.stdout.splitlines()
    counts = ["B wins", "ties", "images"]
    assert header == "folder:set, native-v1: B = dcp against A = dcp"
    assert re.split(r"\s{2,}", columns.strip()) == ["metric", "A", "B", "B − A", "95 %", "p", *counts, "B is"]
    assert re.split(r"\s{2,}", psnr.strip())[3:] == ["+0", "+0 to +0", "1", "0", "4", "4", "no difference shown"]
    assert ssim.startswith("ssim ↑")
    assert note == "Too few images for p < 0.05 with 2 metrics: psnr, ssim."

    means = [record.read(results / f"out/{name}__folder-set__native-v1.json") for name in ("identity", "dcp")]
    worse = sorted(means, key=lambda one: one.metrics["psnr"].mean)
    names = [one.method.name for one in worse]
    drop = worse[1].metrics["psnr"].mean - worse[0].metrics["psnr"].mean
    assert bench("compare", *names, *out, "--metric", "psnr", "--tolerance", "psnr=0").exit_code == 0
    back = bench("compare", *names[::-1], *out, "--metric", "psnr", "--tolerance", f"psnr={drop / 2}")
    assert back.exit_code == 1
    assert back.stderr.startswith("step back: folder:set, native-v1: psnr is worse by")
    assert bench("compare", *names[::-1], *out, "--metric", "psnr", "--tolerance", f"psnr={drop * 2}").exit_code == 0


@pytest.mark.slow
def test_compare_draws(bench, results, tmp_path):
    folders = ["--save-images", results / "pictures", "--save-images", results / "pictures/dcp__folder-set__native-v1"]
    what = ["identity", "dcp", "--results", results / "out", "--tolerance", "psnr=100", "--tolerance", "ssim=1"]
    drawn = ["--scatter", tmp_path / "deep/scatter.pdf", "--sheet", tmp_path / "sheet.png"]
    result = bench("compare", *what, *drawn, *folders, "--dataset", f"folder:{results / 'set'}")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "deep/scatter.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == pytest.approx(4 * 2.6 * 160, abs=2)  # hazy, A, B, clear
    result = bench("compare", *what, *drawn, *folders[:3], results / "set")
    assert (result.exit_code, "set holds no image that is named as one of folder:set" in result.stderr) == (1, True)
    result = bench("compare", *what, *drawn, *folders, "--dataset", "sample")
    assert (result.exit_code, "No record fits" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["identity", "nobody"], 1, "No record is of 'nobody'. There are records of dcp, identity"),
        (["identity", "dcp", "--metric", "lpips"], 1, "lpips is not in both records. Both have psnr, ssim"),
        (["identity", "dcp", "--tolerance", "0.1"], 2, "--tolerance 0.1 is not METRIC=UNITS, such as psnr=0.1"),
        (["identity", "dcp", "--tolerance", "psnr=-1"], 2, "--tolerance psnr=-1 is not zero or more"),
        (["identity", "dcp", "--tolerance", "psnr=nan"], 2, "--tolerance psnr=nan is not zero or more"),
        (["identity", "dcp", "--tolerance", "niqe=1"], 2, "--tolerance names niqe, which is not compared"),
        (["identity", "dcp", "--sheet", "x.png"], 2, "Name A's folder and B's with --save-images"),
        (["identity", "dcp", "--scatter", "x.nothing"], 1, "x.nothing cannot be written"),
        (
            ["identity", "dcp", "--dataset", "other"],
            1,
            "There are records of folder:set under native-v1",
        ),
        (["identity", "missing.json"], 1, "missing.json cannot be read: No such file"),
    ],
)
def test_mistakes_in_compare_are_one_line(bench, results, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    result = bench("compare", *arguments, "--results", results / "out")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_a_damaged_file_stops_a_comparison(bench, results, tmp_path):
    for path in (results / "out").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    values = tmp_path / "dcp__folder-set__native-v1.parquet"
    values.write_bytes(values.read_bytes()[:-9])
    result = bench("compare", "identity", "dcp", "--results", tmp_path)
    assert (result.exit_code, "parquet is damaged" in result.stderr) == (1, True)
    report = bench("report", "--results", tmp_path, "--format", "html", "--output", tmp_path / "page.html")
    assert (report.exit_code, "left out: " in report.stderr) == (1, True)
    assert "dcp" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_report_prints_or_writes_tables(bench, results, tmp_path):
    printed = bench("report", "--results", results / "out")
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.startswith("### folder:set, native-v1\n")
    one = results / "out/dcp__folder-set__native-v1.json"
    written = bench("report", one, "--format", "csv", "--output", tmp_path / "a.csv", "--figures", tmp_path / "figures")
    assert written.exit_code == 0, written.output
    assert [line.split(",")[3] for line in (tmp_path / "a.csv").read_text().splitlines()] == ["method", "dcp"]
    bench("report", "--results", results / "out", "--figures", tmp_path / "all")
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        f"folder-set-native-v1__psnr__{what}.{suffix}"
        for what in ("quality-against-speed", "values-of-each-image")
        for suffix in ("pdf", "png")
    ]
    assert len(list((tmp_path / "figures").iterdir())) == 2  # one method alone is not set against speed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--format", "html", "--metric", "lpips"], 2, "has no lpips. It has psnr, ssim"),
        (["--save-images", "."], 2, "is for --format html of one record"),
        (["--protocol", "long800-v1"], 1, "No record fits"),
        (["missing.json"], 1, "missing.json cannot be read"),
    ],
)
def test_mistakes_in_report_are_one_line(bench, results, arguments, code, message):
    result = bench("report", *arguments, "--results", results / "out")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_the_page_of_a_run_is_one_file_with_its_images_worst_first(bench, results, tmp_path):
    path = results / "out/dcp__folder-set__native-v1.json"
    output = tmp_path / "run.html"
    what = ["--save-images", results / "pictures", "--dataset", f"folder:{results / 'set'}", "--output", output]
    result = bench("report", path, "--format", "html", "--images", 3, *what)
    assert result.exit_code == 0, result.output
    text = output.read_text()
    assert set(re.findall(r'(?:src|href)="([a-z]+:[a-z]+/[a-z+]+)', text)) == {"data:image/jpeg", "data:image/svg+xml"}
    assert not re.search(r'(?:src|href)="(?!data:)|url\(|@import|<script', text)
    psnr = {id_: row.values["psnr"] for id_, row in record.read_values(path, record.read(path)).items()}
    assert re.findall("<h3>(.*?)</h3>", text) == sorted(psnr, key=psnr.get)[:3]
    assert "1 more images are left out" in text
    assert text.count("data:image/jpeg") == 3 * 3
    assert re.findall("<figcaption>(.*?)</figcaption>", text)[:3] == ["hazy", "restored", "clear"]


def test_the_page_escapes_what_records_say(make):
    text = page.of_run(make("<script>a", {"psnr": 20.0}, failures=1), {"x": Row(id="<b>x")}, {})
    assert "<script>" not in text and "&lt;script&gt;a on sample" in text
    assert "<h3>&lt;b&gt;x</h3>" in text
    tables = page.of_tables(table.tables([make("a", {"psnr": 20.0}), make("b", {"psnr": 21.0})]), {})
    assert "<strong>21.00</strong> [20.00, 23.00]" in tables


def test_failures_come_first_and_images_without_a_value_last(make):
    [found] = table.tables([make("a", {"ciede2000": 20.0})])
    failed = Row(id="failed", failures=(Failure(id="failed", stage="read", reason="damaged"),))
    rows = [Row(id="none"), *(Row(id=f"{value}", values={"ciede2000": value}) for value in (1.0, 3.0, 2.0)), failed]
    assert [row.id for row in page.worst_first(rows, found.column())] == ["failed", "3.0", "2.0", "1.0", "none"]


def test_pages_open_offline_on_a_phone_and_a_desk(bench, browser, tmp_path):
    board = ["--dataset", "o-haze-3", "--output", tmp_path / "tables.html"]
    run = [RESULTS / "dcp__sample__native-v1.json", "--dataset", "sample", "--output", tmp_path / "run.html"]
    for arguments in (board, run):
        assert bench("report", *arguments, "--format", "html").exit_code == 0
        for width, scheme, background in ((390, "dark", "rgb(25, 25, 25)"), (1280, "light", "rgb(255, 255, 255)")):
            context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
            shown = context.new_page()
            shown.goto(arguments[-1].as_uri())
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == background
            assert shown.evaluate("document.images.length") >= 1
            assert shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            context.close()


def test_scatter_names_who_is_better_and_leaves_out_infinite_values():
    before = {"a": 1.0, "b": 2.0, "c": float("inf"), "d": 4.0, "e": 1.0}
    after = {"a": 2.0, "b": 1.5, "c": 3.0, "d": 9.0}
    axes = figures.scatter(before, after, ("one", "two"), "psnr", "up").axes[0]
    assert axes.get_title(loc="left") == "two is better on 2 of 3 images"
    assert {text.get_text() for text in axes.texts} == {"a", "b", "d"}
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 3
    down = figures.scatter(before, after, ("one", "two"), "niqe", "down").axes[0]
    assert down.get_title(loc="left") == "two is better on 1 of 3 images"
    with pytest.raises(DrawingError, match="No image has a finite psnr by both one and two"):
        figures.scatter({"a": float("inf")}, {"a": 1.0}, ("one", "two"), "psnr", "up")


def test_distributions_show_every_value_and_count_the_infinite_ones():
    values = {"psnr": {"a": [1.0, 2.0, float("inf")], "b": [3.0]}, "ssim": {"a": [0.5], "b": []}, "empty": {"a": []}}
    drawn = figures.distributions(values, {"psnr": "psnr ↑ (dB)", "ssim": "ssim ↑"})
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["psnr ↑ (dB)", "ssim ↑"]
    dots = [sorted(x for rows in axes.collections for x, _ in rows.get_offsets()) for axes in drawn.axes]
    assert dots == [[1.0, 2.0, 3.0], [0.5]]
    assert [text.get_text() for text in drawn.axes[0].texts] == ["1 × ∞"]
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["a", "b"]
    with pytest.raises(DrawingError, match="no values to draw"):
        figures.distributions({"psnr": {"a": []}}, {})


def test_a_contact_sheet_leaves_missing_pictures_empty():
    picture = Image.new("RGB", (30, 20), "red")
    sheet = figures.contact_sheet([("one", [picture, None]), ("two", [picture, picture])], ["A", "B"])
    assert [len(axes.images) for part in sheet.subfigs for axes in part.axes] == [1, 0, 1, 1]
    assert [part.get_suptitle() for part in sheet.subfigs] == ["one", "two"]
    sheet.savefig(io.BytesIO())


def test_pictures_are_found_by_id(put, tmp_path):
    put(tmp_path, "a.png", "real/b.jpg", size=(64, 32))
    found = pictures.find(tmp_path)
    assert {id_: path.name for id_, path in found.items()} == {"a": "a.png", "real/b": "b.jpg"}
    assert pictures.small(found["a"], 16).size == (16, 8)
    (tmp_path / "a.png").write_bytes(b"damaged")
    assert pictures.small(found["a"], 16) is None
    put(tmp_path, "real/b.png")
    with pytest.raises(DatasetError, match=r"holds b.jpg and b.png. Keep one"):
        pictures.find(tmp_path)
    with pytest.raises(DatasetError, match="holds no image"):
        pictures.find(tmp_path / "empty")
