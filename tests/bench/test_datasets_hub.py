"""Data sets through the library `datasets` and the Hub's own client, against a Hub on this machine."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import datasets
from bench.datasets import catalogue, hub
from bench.errors import DatasetError
from tests.hub import HubServer, impatient

pytestmark = pytest.mark.slow  # the library `datasets` takes its time
PAIRS = ("hazy/51.png", "hazy/52.png", "clear/51.png", "clear/52.png")


@pytest.fixture
def server(monkeypatch, tmp_path):
    with HubServer() as served:
        served.connect(monkeypatch, tmp_path / "cache")
        yield served


@pytest.fixture
def folder(put, tmp_path):
    put(tmp_path / "set", *PAIRS)
    return tmp_path / "set"


@pytest.fixture
def local(folder):
    return datasets.load(f"folder:{folder}")


@pytest.fixture
def pairs(server, folder):
    """Serve the folder with metadata, which names the files of a row."""
    server.put_folder("dataset", "org/pairs", folder)
    rows = {"id": ["51", "52"]}
    for kind in ("hazy", "clear"):
        rows[f"{kind}_file_name"] = [f"{kind}/51.png", f"{kind}/52.png"]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(rows), sink)
    server.put("dataset", "org/pairs", {"metadata.parquet": sink.getvalue().to_pybytes()})
    return server


def test_a_set_with_metadata_has_the_fingerprint_of_the_same_folder(pairs, local):
    made = datasets.load("hub:org/pairs")
    assert made.name == "hub:org/pairs"
    assert (made.pairs, made.fingerprint) == (2, local.fingerprint)
    commit = pairs.repositories["dataset", "org/pairs"].resolve("main")
    assert made.notes == (f"org/pairs at commit {commit}",)
    assert [sample.hazy.read_bytes() for sample in made.samples] == [s.hazy.read_bytes() for s in local.samples]


def test_a_part_is_streamed_and_named_as_one(pairs, local):
    made = datasets.load("hub:org/pairs", limit=1, name="mine")
    assert made.name == "mine-first1"
    assert made.samples[0].hazy.read_bytes() == local.samples[0].hazy.read_bytes()
    assert [s.id for s in datasets.load("hub:org/pairs", limit=2).samples] == ["51", "52"]
    assert datasets.load("hub:org/pairs", limit=2).name == "hub:org/pairs"


def test_streaming_fetches_no_more_than_the_part(pairs, put, folder):
    put(folder, *(f"{kind}/{number}.png" for kind in ("hazy", "clear") for number in range(60, 70)))
    pairs.put_folder("dataset", "org/many", folder)
    datasets.load("hub:org/many", limit=1)
    fetched = [request.rsplit("/", 1)[1] for request in pairs.requests if request.startswith("GET /datasets/org/many/")]
    assert [name for name in fetched if name.endswith(".png")] == ["51.png", "51.png", "52.png", "52.png"]  # one more


def test_images_inside_parquet_keep_their_bytes(server, folder, local):
    from datasets import Dataset, Features, Image

    files = {kind: [str(folder / kind / f"{number}.png") for number in (51, 52)] for kind in ("hazy", "clear")}
    Dataset.from_dict(files, Features(hazy=Image(), clear=Image())).push_to_hub("org/parquet")
    assert any(name.endswith(".parquet") for name in server.files("dataset", "org/parquet"))
    for limit in (None, 5):
        assert datasets.load("hub:org/parquet", limit=limit).fingerprint == local.fingerprint


def test_folders_and_splits_without_metadata(server, folder, local):
    files = {}
    for path in folder.rglob("*.png"):
        kind = {"hazy": "hazy", "clear": "GT"}[path.parent.name]
        files[f"test/{kind}/{path.name}"] = path.read_bytes()
        files[f"train/{kind}/{path.name}"] = path.read_bytes()[::-1]
    server.put("dataset", "org/split", files)
    assert datasets.load("hub:org/split").fingerprint == local.fingerprint
    assert not any("/train/" in request for request in server.requests)  # what is not asked for is not fetched
    assert datasets.load("hub:org/split:default/test").fingerprint == local.fingerprint
    assert datasets.load("hub:org/split:default/train", limit=1).samples[0].hazy_sha256 != local.samples[0].hazy_sha256
    with pytest.raises(DatasetError, match=r"has the splits train, test\. Name one as hub:org/split:CONFIG/SPLIT"):
        datasets.load("hub:org/split:default/validation")


def test_a_revision_is_kept_to(pairs, local):
    first = pairs.repositories["dataset", "org/pairs"].resolve("main")
    pairs.put("dataset", "org/pairs", {"hazy/51.png": local.samples[1].hazy.read_bytes()})
    assert datasets.load("hub:org/pairs").fingerprint != local.fingerprint
    assert datasets.load(f"hub:org/pairs@{first}").fingerprint == local.fingerprint


def test_a_set_of_the_catalogue_comes_from_its_copy_and_says_so(server, put, folder, tmp_path, monkeypatch):
    """The copy holds other sets as well, whose files are told apart by their paths."""
    put(tmp_path / "copy", *(f"nh-haze/{kind}/{number}.png" for kind in ("hazy", "GT") for number in (50, 51)))
    put(tmp_path / "copy", "o-haze/hazy/1.png", "o-haze/GT/1.png")
    server.put_folder("dataset", "org/NH-HAZE-and-others", tmp_path / "copy")
    mirror = catalogue.Mirror(repo="org/NH-HAZE-and-others", part="nh-haze")
    entry = replace(catalogue.get("nh-haze"), mirror=mirror, samples=2, pairs=2)
    monkeypatch.setattr(catalogue, "get", lambda name: entry)
    made = datasets.load("nh-haze")
    assert (made.name, [sample.id for sample in made.samples]) == ("nh-haze", ["50", "51"])
    assert "from org/NH-HAZE-and-others, an unofficial copy" in made.notes[0]
    assert datasets.load("nh-haze", limit=1).name == "nh-haze-first1"
    monkeypatch.setattr(catalogue, "get", lambda name: replace(entry, samples=55))
    with pytest.raises(DatasetError, match="org/NH-HAZE-and-others holds 2 images, but nh-haze has 55"):
        datasets.load("nh-haze")
    monkeypatch.setattr(catalogue, "get", lambda name: replace(entry, mirror=replace(mirror, part="i-haze")))
    with pytest.raises(DatasetError, match="NH-HAZE-and-others has no file with i-haze in its path"):
        datasets.load("nh-haze")


def test_a_damaged_image_is_left_to_the_run(pairs):
    pairs.put("dataset", "org/pairs", {"hazy/51.png": b"not an image"})
    assert datasets.load("hub:org/pairs").pairs == 2


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("name", ["{}/secret.png", "file://{}/secret.png", "{}/cache/hub/../../secret.png"])
def test_a_data_set_cannot_name_files_of_this_machine(server, tmp_path, name, limit):
    (tmp_path / "secret.png").write_bytes(b"secret")
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"hazy": pa.array([{"bytes": None, "path": name.format(tmp_path)}], image)})
    features = '{"info": {"features": {"hazy": {"_type": "Image"}}}}'
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), sink)
    server.put("dataset", "org/thief", {"train.parquet": sink.getvalue().to_pybytes()})
    with pytest.raises(DatasetError, match="which is no file of its own"):
        datasets.load("hub:org/thief", limit=limit)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, r"\(.*\)\. Try again"),
        ({"status": 429, "headers": {"Retry-After": "1"}}, r"the Hub refuses more requests \(429\)"),
        ({"status": 500}, r"cannot be had from the Hub \(.*\)\. Try again"),
        ({"truncate": True, "methods": ("GET",)}, r"cannot be had from the Hub \(.*\)\. Try again"),
        ({"delay": 1.0, "methods": ("GET",)}, r"cannot be had from the Hub \(.*\)\. Try again"),
    ],
    ids=["404", "429", "500", "truncated", "slow"],
)
def test_each_fault_is_one_clear_error(pairs, monkeypatch, fault, message, limit):
    from huggingface_hub import constants

    impatient(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    pairs.fail(".png", **fault)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load("hub:org/pairs", limit=limit)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("org/pairs cannot")
    pairs.heal()
    assert datasets.load("hub:org/pairs").pairs == 2  # nothing half fetched is kept


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hub:org/none", "org/none is no data set on the Hub that you can read"),
        ("hub:org/pairs@gone", "org/pairs has no revision 'gone' on the Hub"),
        ("hub:org/pairs:other/train", r"org/pairs cannot be had from the Hub \(ValueError"),
        ("hub:org/text", "It needs hazy, and clear for pairs"),
        ("hub:org", "is not of the form hub:ORG/NAME"),
    ],
)
def test_what_is_not_there_is_said(pairs, spec, message):
    pairs.put("dataset", "org/text", {"train.csv": b"a,b\n1,2\n"})
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load(spec)
    assert "\n" not in str(caught.value)


def test_without_a_connection_the_message_says_what_to_do(server, monkeypatch):
    from huggingface_hub import constants

    impatient(monkeypatch)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DatasetError, match="Try again, or give the set as folder:PATH"):
        hub.load("org/pairs")
