"""A model's card with its figures, which come from records and are typed by nobody.

`dehaze` reads no records, so the card is made here and given to `python -m dehaze push --card`.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from bench.errors import RecordError
from bench.record import RESULTS, Record
from bench.report.escape import markdown_text
from bench.report.render import table_row
from bench.report.table import ARROWS, Table, tables
from leaderboard.view import score_text

SHIPPED = RESULTS.parents[1] / "dehaze" / "weights"
# What stands between these two lines of a card gives way to the figures of the records, so that none is there twice.
PLACE = re.compile(r"<!-- figures -->\n.*?<!-- /figures -->\n", re.DOTALL)


def with_figures(name: str, records: Sequence[Record], folder: Path | None = None) -> str:
    """Return the card in `folder` with the figures of the model `name`: a table at its PLACE, and `model-index`.

    `folder` (default: the shipped weights) holds the card beside the weights, whose hash the records must name. A card
    without a PLACE gets a section at its end. Raises RecordError if there is no record of the model, or one is of other
    weights.
    """
    from huggingface_hub import EvalResult, ModelCard

    folder = folder or SHIPPED / name.replace(":", "_")
    card, weights = folder / "README.md", folder / "model.safetensors"
    for path in (card, weights):
        if not path.is_file():
            raise RecordError("does not exist: give the folder of a model's weights and card", path)
    own = [record for record in records if record.method.name == name and record.method.source == "model"]
    if not own:
        raise RecordError(f"there is no record of the model {name}: 'python -m bench run --model {name}' makes some")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if other := [record.stem for record in own if record.method.weights_sha256 != digest]:
        raise RecordError(f"{', '.join(other)}: of other weights than {weights}; run the benchmark again")
    made = ModelCard(card.read_text(encoding="utf-8"))
    made.data.model_name = name
    made.data.eval_results = [
        EvalResult(
            task_type="image-to-image",
            task_name="Image dehazing",
            dataset_type=record.dataset.name,
            dataset_name=f"{record.dataset.name} ({record.dataset.samples} images)",
            dataset_config=record.protocol,
            dataset_args={"fingerprint": record.dataset.fingerprint},
            metric_type=metric,
            metric_name=f"{metric} {ARROWS[summary.direction]}",
            metric_value=summary.mean,
        )
        for record in own
        for metric, summary in record.metrics.items()
        if summary.mean is not None
    ]
    figures = _figures(tables(own))
    text, found = PLACE.subn(lambda _: figures, made.text)
    made.text = text if found else f"{text.rstrip()}\n\n## Figures from the records\n\n{figures}"
    return str(made)


def _figures(found: list[Table]) -> str:
    columns = {column.name: column for table in found for column in table.columns}
    headings = [f"{name} {ARROWS[one.direction]}" for name, one in columns.items()]
    lines = [
        "The mean over all images of a set [95 % bootstrap interval]; ↑ higher or ↓ lower is better. Numbers under",
        "different protocols are never comparable. † marks a set that training data of this model overlaps.",
        "",
        table_row(["data set", "protocol", "images", *(markdown_text(heading) for heading in headings)]),
        table_row(["---", "---", *["---:"] * (1 + len(columns))]),
    ]
    for table in found:
        [record] = table.records
        scores = [
            "–" if (summary := record.metrics.get(name)) is None else score_text(summary, table.column(name))
            for name in columns
        ]
        names = table.dataset.name + (" †" if record.contaminated else ""), table.protocol
        lines.append(table_row([*map(markdown_text, names), str(table.dataset.samples), *scores]))
    return "\n".join(lines) + "\n"
