"""A model's card with its figures, which come from records and are typed by nobody.

`dehaze` reads no records, so the card is made here and given to `python -m dehaze push --card`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bench.errors import RecordError
from bench.record import Record
from bench.report.table import ARROWS
from bench.schema import name_in_look
from leaderboard import figures

SHIPPED = figures.REPOSITORY / "dehaze" / "weights"


def with_figures(name: str, records: Sequence[Record], folder: Path | None = None) -> str:
    """Return the card in `folder` with the figures of the model `name`: its tables written anew, and `model-index`.

    `folder` (default: the shipped weights) holds the card beside the weights, whose hash the records must name. A card
    without the table `card NAME` gets it at its end. Raises RecordError if there is no record of the model, or one is
    of other weights.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    folder = folder or SHIPPED / name.replace(":", "_")
    card, weights = folder / "README.md", folder / "model.safetensors"
    for path in (card, weights):
        if not path.is_file():
            raise RecordError("does not exist.", "Give the folder of a model's weights and card.", subject=path)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    # By the weights, not by the name: `bench run --method` gives any.
    own = [record for record in records if record.method.weights_sha256 == digest and not record.method.adjustments]
    other = [record.stem for record in records if figures.is_model(record, name) and record not in own]
    if other and (not own or folder == SHIPPED / name.replace(":", "_")):
        raise RecordError(f"holds other weights than {', '.join(other)}.", "Run the benchmark again.", subject=weights)
    if not own:
        raise RecordError(
            f"There is no record of the model {name}.", f"'python -m bench run --model {name}' makes one."
        )
    made = ModelCard(card.read_text(encoding="utf-8"))
    assert isinstance(made.data, ModelCardData)  # the stubs know the class of any card alone
    made.data.model_name = name
    made.data["weights_sha256"] = digest
    made.data.eval_results = [
        EvalResult(
            task_type="image-to-image",
            task_name="Image dehazing",
            dataset_type=record.dataset.name,
            dataset_name=f"{record.dataset.name} ({record.dataset.samples} images)",
            dataset_config=record.protocol,
            dataset_args={"fingerprint": record.dataset.fingerprint},
            metric_type=metric,
            metric_name=name_in_look(f"{metric} {ARROWS[summary.direction]}", record.method.look),
            metric_value=summary.mean,
        )
        for record in own
        for metric, summary in record.metrics.items()
        if summary.mean is not None
    ]
    made.text = figures.rewrite(made.text, records)
    if f"<!-- figures: card {name} -->" not in made.text:
        made.text = f"{made.text.rstrip()}\n\n## Figures from the records\n\n{figures.card_table(own)}\n"
    return str(made)
