"""The form by which results come to the board: checked in the open, scored in the queue, proposed as a pull request."""

import logging
import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from bench.errors import BenchError
from bench.record import MOST_BYTES, RESULTS, Record
from bench.report.escape import html_text
from dehaze.errors import DehazeError
from dehaze.page.folder import disk_is_full, full_disk_explained
from leaderboard import hub, scoring
from leaderboard.errors import SubmissionError
from leaderboard.page import PRIVATE, Listening
from leaderboard.submission import Finding, Submission, check

REQUESTS, REQUEST_SECONDS = 10, 3600  # pull requests that the page opens for all its visitors within this time
KEPT_SECONDS = 3600
# The text fields and the most characters of each; browsers hold visitors to them, and clients need not be browsers.
FIELDS = {"Method": 80, "Paper": 300, "Licence of the weights": 80, "Parameters": 20, "Trained on": 500}
INTRO = """
Bring your method to the board. What you hand in is checked here, and you see what was looked at and what is wrong with
it. Nothing is sent by a check. What passes can be proposed to the results data set as a pull request, which a person
reads before it shows. From the shell, `python -m leaderboard submit` does the same.
"""
RECORD = """
`python -m bench run` and `python -m bench score` write two files for each data set: a record (`.json`), and the values
of its images (`.parquet`). Hand in both.
"""
PREDICTIONS = """
A zip archive of restored images, one for each hazy one and named like it, at the size that the protocol gives. Scoring
takes its turn, some seconds an image. Only sets that this server holds can be scored here.
"""


class Quota:
    """Let so many through within some seconds, whoever they are: the requests go by the page's own name."""

    def __init__(self, count: int, seconds: float):
        self._count, self._seconds = count, seconds
        self._taken: deque[float] = deque()
        self._lock = Lock()

    def take(self) -> bool:
        """Count one more and return True, or return False if there were enough of late."""
        with self._lock:
            now = time.monotonic()
            while self._taken and self._taken[0] <= now - self._seconds:
                self._taken.popleft()
            if len(self._taken) >= self._count:
                return False
            self._taken.append(now)
            return True


def form(results: Path = RESULTS, repo: str | None = None, data_root: str | Path | None = None) -> None:
    """Add the form to the Blocks that are being built.

    What is handed in is compared with the records in `results`, and proposed to the results data set `repo` on the Hub
    with the token of this machine; without a data set it can be checked only. Beside the sample set, those sets of the
    catalogue can be scored that lie in `data_root`.
    """
    import gradio as gr

    from bench import protocol

    data_root = Path(data_root) if data_root else None
    quota = Quota(REQUESTS, REQUEST_SECONDS)

    def outcome(found: Submission) -> tuple:
        """Show what was found, and let it be sent if it is in order."""
        files = None
        if record := found.accepted:
            found = _named(found, record)
            files = [str(found.path.with_suffix(suffix)) for suffix in (".json", ".parquet")]
        ready = gr.Button(interactive=record is not None and repo is not None)
        return render(found, repo), gr.File(files, visible=files is not None), ready, found

    @contextmanager
    def room() -> Iterator[None]:
        """Turn a full disk into a message on the page."""
        try:
            with full_disk_explained():
                yield
        except DehazeError as error:
            raise gr.Error(html_text(str(error)), 30, title="No room", print_exception=False) from None

    def check_record(uploads: list[str] | None) -> tuple:
        with room():
            return outcome(_received(uploads or [], results))

    def check_predictions(upload: str | None, *about: Any) -> Iterator[tuple]:
        yield "<p role=status>Scoring …</p>", gr.File(None, visible=False), gr.Button(interactive=False), None
        with room():
            found = outcome(_scored(upload, *about, results=results, data_root=data_root))
        yield found

    def send(found: Submission | None) -> tuple:
        """Check once more, as time has passed, and open the request."""
        wait = gr.Button(interactive=False)
        if found is None or repo is None:
            return gr.skip(), wait
        with room():
            found = check(found.path, results)
        record = found.accepted
        if record is None:
            return render(found, repo), wait
        if not quota.take():
            words = "Enough was proposed through this page for now. Come back in an hour, or use the shell."
            return f"<p role=status>{words}</p>", gr.skip()
        try:
            with room():
                address = html_text(hub.propose(found.path, record, repo, found.markdown()))
        except BenchError as error:
            logging.getLogger(__name__).warning("A record was not proposed: %s", error)
            return f"<p role=status>{html_text(error.for_visitors())}</p>", gr.skip()
        link = f"<a href='{address}' target='_blank' rel='noopener'>{address}</a>"
        return f"<p role=status>Proposed: {link}. It shows on the board once somebody has read and merged it.</p>", wait

    def text(label: str, **how: Any) -> gr.Textbox:
        return gr.Textbox(label=label, max_length=FIELDS[label], **how)

    gr.Markdown(INTRO)
    with gr.Row():
        with gr.Column(scale=2, min_width=320), gr.Tabs():
            with gr.Tab("A record"):
                gr.Markdown(RECORD)
                files = gr.File(
                    label="Record and values", file_count="multiple", file_types=[".json", ".parquet"], height=140,
                    elem_id="record",
                )  # fmt: skip
                checked = gr.Button("Check the record", variant="primary")
            with gr.Tab("Restored images"):
                gr.Markdown(PREDICTIONS)
                archive = gr.File(label="Zip archive", file_types=[".zip"], height=140, elem_id="predictions")
                with gr.Row():
                    sets = available(data_root)
                    dataset = gr.Dropdown(sets, value=sets[0], label="Images of", min_width=140)
                    rules = gr.Dropdown(protocol.names(), value="native-v1", label="Scored under", min_width=140)
                name = text("Method")
                paper = text("Paper", info="its address; may be left out")
                with gr.Row():
                    licence = text("Licence of the weights", min_width=140)
                    parameters = text("Parameters", min_width=140)
                trained_on = text("Trained on", info="data sets, separated by commas: overlaps are marked")
                scored = gr.Button("Score and check", variant="primary")
        with gr.Column(scale=3, min_width=320):
            findings = gr.HTML("<p>What was looked at appears here.</p>", elem_id="findings", padding=False)
            take_home = gr.File(label="The record, to take home", visible=False, interactive=False, elem_id="checked")
            sent = gr.Button("Open the pull request", interactive=False, elem_id="send")
            answer = gr.HTML(elem_id="answer", padding=False)

    handed_in = gr.State(time_to_live=KEPT_SECONDS)
    outputs = [findings, take_home, sent, handed_in]
    about = [dataset, rules, name, paper, licence, parameters, trained_on]
    checked.click(check_record, files, outputs, concurrency_limit=2, **PRIVATE)
    scored.click(check_predictions, [archive, *about], outputs, concurrency_limit=1, **PRIVATE)
    sent.click(send, handed_in, [answer, sent], concurrency_limit=1, **PRIVATE)
    at_once: Listening = {**PRIVATE, "queue": False}
    for start in (checked.click, scored.click):
        start(lambda: "", None, answer, **at_once)


def available(data_root: Path | None) -> list[str]:
    """List the data sets that can be scored here: the sample set, and those of the catalogue in `data_root`."""
    from bench.datasets import catalogue

    if data_root is None:
        return ["sample"]
    entries = map(catalogue.get, catalogue.names())
    lying = [entry.name for entry in entries if any((data_root / folder).is_dir() for folder in entry.folders)]
    return ["sample", *lying]


def render(found: Submission, repo: str | None) -> str:
    """Return the findings as HTML, and what would be sent."""
    rows = "".join(
        f"<tr class='{one.verdict}'><th scope=row>{html_text(one.subject)}</th><td>{one.verdict}</td>"
        f"<td>{html_text(one.text)}</td></tr>"
        for one in found.findings
    )
    if record := found.accepted:
        names = " and ".join(f"<code>{html_text(path)}</code>" for path in hub.files(found.path, record))
        where = html_text(repo) if repo else "a results data set, but this page is connected to none: use the shell"
        words = f"In order. {names} would be sent to {where}"
    else:
        words = "Nothing can be sent: put right what is wrong, and check again"
    return f"<p role=status>{words}.</p><table><tbody>{rows}</tbody></table>"


def _received(uploads: list[str], results: Path) -> Submission:
    """Check an uploaded record and its values, whatever their names."""
    from bench.datasets import some

    paths = [Path(upload) for upload in uploads]
    if sorted(path.suffix.lower() for path in paths) != sorted(MOST_BYTES):
        names = some([path.name for path in paths]) or "nothing"
        return _wrong(f"a record is one .json and one .parquet file, and this is {names}")
    for path in paths:
        if path.stat().st_size > (most := MOST_BYTES[path.suffix.lower()]):
            return _wrong(f"{path.name} has more than {most / 1e6:g} MB, which no record needs: score again")
    folder = _folder()
    for path in paths:
        shutil.copyfile(path, folder / f"record{path.suffix.lower()}")
    return check(folder / "record.json", results)


def _scored(
    upload: str | None, dataset: Any, protocol: Any, *texts: Any, results: Path, data_root: Path | None
) -> Submission:
    """Score an uploaded archive and check the record; `texts` are those of FIELDS."""
    from bench import protocol as protocols

    if not upload:
        return _wrong("there is no archive yet: add one")
    try:
        for what, value, offered in (
            ("data set", dataset, available(data_root)),
            ("protocol", protocol, protocols.names()),
        ):
            if value not in offered:
                raise SubmissionError(f"This page offers no such {what}.", "Reload it, and choose one of the list.")
        name, paper, licence, parameters, trained_on = map(_text, FIELDS, texts)
        if not name:
            raise SubmissionError("The method has no name.", "Give it one.")
        count = parameters.replace(",", "")
        if count and not (count.isascii() and count.isdigit()):
            raise SubmissionError("is no number of parameters.", "Give a whole number.", subject=repr(parameters))
        sets = tuple(part.strip() for part in trained_on.split(",") if part.strip())
        method = scoring.describe(
            name=name, paper=paper or None, license=licence or None, trained_on=sets,
            parameters=int(count) if count else None,
        )  # fmt: skip
        return check(scoring.score(Path(upload), dataset, protocol, method, _folder(), data_root), results)
    except BenchError as error:
        if disk_is_full(error):
            raise
        return _wrong(error.for_visitors())


def _text(field: str, value: Any) -> str:
    """Return what a text field holds. Raises SubmissionError if a client sent something else, or too much."""
    if not isinstance(value, str | None):
        raise SubmissionError("is no text.", "Fill in the form anew.", subject=field)
    if len(value or "") > FIELDS[field]:
        raise SubmissionError(f"has more than {FIELDS[field]} characters.", "Shorten it.", subject=field)
    return (value or "").strip()


def _named(found: Submission, record: Record) -> Submission:
    """Give the files of the record the names that they have on the board."""
    path = found.path.with_name(f"{record.stem}.json")
    for suffix in (".json", ".parquet"):
        found.path.with_suffix(suffix).rename(path.with_suffix(suffix))
    return replace(found, path=path)


def _wrong(text: str) -> Submission:
    return Submission(Path(), None, (Finding("files", "wrong", text),))


def _folder() -> Path:
    """Make a folder among the files that the page serves, and empties in time."""
    from gradio.utils import get_upload_folder

    folder = Path(get_upload_folder()) / uuid4().hex
    folder.mkdir(parents=True)
    return folder
