"""The parts of a result record, as its files hold them: types, bounds, and what each field means."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

# More than any record needs, and little enough to be read in seconds, whatever the bytes are.
MOST_BYTES = {".json": 2_000_000, ".parquet": 8_000_000}
MOST_IMAGES = 50_000
MOST_METRICS = 40
LARGEST = 1e18  # of finite numbers; sums of them stay finite

# A record holds finite numbers alone; what has no value is None (null), what is infinite is counted.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
# A row may hold an infinite PSNR, which JSON has no number for: it becomes the string "Infinity".
_ROW = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


def _check_name(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise PydanticCustomError("name", "Name should have no characters that cannot be seen, and no spaces around it")
    return name


def _check_time(text: str) -> str:
    datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    return text


Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_name)]
Text = Annotated[str, Field(max_length=1000)]
Texts = Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(max_length=100, fail_fast=True)]
Look = Literal["photo", "faithful"]
Adjustment = Literal["skies", "shadows", "colour", "brightness"]
Amounts = dict[Adjustment, Annotated[float, Field(ge=0, le=1)]]
Id = Annotated[str, Field(max_length=4096)]  # of an image: its path without suffix
# ISO 8601, UTC
Time = Annotated[str, Field(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}Z$"), AfterValidator(_check_time)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Identity:
    """Which output a model gives: where the hashes of weights, configuration and code are equal, the pixels are.

    `code` is the version of the code that changes numbers. A model without parameters has no weights.
    """

    weights_sha256: Text | None = None
    config_sha256: Text | None = None
    code: Text | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Method(Identity):
    """What was scored: a model of this project or code from outside, with its identity; or predictions of any method.

    `config_sha256` is None in records of schema 1 and 2. `look` is that of the results of a model of this project, None
    before schema 4. `adjustments` holds the amounts, from 0 to 1, of the adjustments that are not the look's own. Both
    end the `name`, as `name_in_look` writes it.
    """

    name: Name
    source: Literal["model", "outside", "predictions"] = "model"
    revision: Text | None = None  # of the model's weights; of predictions, the hash of their bytes
    parameters: Count | None = None
    license: Text | None = None
    paper: Text | None = None
    trained_on: Texts = ()
    look: Look | None = None
    adjustments: Amounts = Field(default_factory=dict)

    def __post_init__(self):
        if not self.name.endswith(ending := _in_look(self.look, self.adjustments)):
            raise PydanticCustomError("name", "Name should end in{ending}", {"ending": ending})

    @property
    def model(self) -> str:
        """Return the name without the look and the adjustments."""
        return self.name.removesuffix(_in_look(self.look, self.adjustments))


def name_in_look(model: str, look: str | None, adjustments: Mapping[str, float] | None = None) -> str:
    """Return a method's name: "api" in the look faithful, "api (photo)", "api (photo, skies 0)"."""
    return model + _in_look(look, adjustments or {})


def _in_look(look: str | None, adjustments: Mapping[str, float] | Mapping[Adjustment, float]) -> str:
    parts = [look] if look == "photo" else []
    parts += [f"{name} {amount:g}" for name, amount in adjustments.items()]
    return f" ({', '.join(parts)})" if parts else ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DatasetInfo:
    """What it was scored on; `fingerprint` is a hash of the original bytes of every image."""

    name: Name
    samples: Count
    pairs: Count
    fingerprint: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Summary:
    """One metric over the set.

    `low` and `high` bound the mean (95 % bootstrap interval, fixed seed) and are None for fewer than two values; `mean`
    is None for none. `count` values are finite and make the mean; `infinite` ones (PSNR of identical images) are
    counted and left out of it.
    """

    mean: Number | None
    low: Number | None
    high: Number | None
    count: Count
    infinite: Count = 0
    direction: Literal["up", "down", "one"]
    unit: Annotated[str, Field(max_length=50)] = ""
    reference: bool


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Failure:
    """What went wrong with one image: `stage` is read, restore or the name of a metric."""

    id: Id
    stage: Text
    reason: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Speed:
    """How long the model took for an image of the median size, and on what."""

    seconds_median: Number
    megapixels_median: Number
    device: Text
    dtype: Text
    threads: Count


@dataclass(frozen=True, kw_only=True, config=_ROW)
class Row:
    """What one image gave: its size in pixels, the seconds the model took, a value for each metric that has one.

    `tile` is the side of the tiles in pixels if memory did not suffice for restoring it as the model does.
    """

    id: Id
    width: Count | None = None
    height: Count | None = None
    seconds: Number | None = None
    tile: Count | None = None
    failures: tuple[Failure, ...] = ()
    values: dict[str, float] = Field(default_factory=dict)
