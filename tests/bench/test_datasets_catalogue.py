import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dehaze
from bench import datasets, protocol, runner
from bench.datasets import catalogue
from bench.datasets.files import read_folder
from bench.errors import DatasetError
from bench.methods.shipped import Model
from bench.metrics import get as get_metric

RESULTS = Path(runner.__file__).parents[1] / "leaderboard" / "results"


def entry(name):
    return catalogue.get(name)


def test_every_set_says_what_is_known_of_it():
    for name in catalogue.names():
        one = entry(name)
        assert one.name == name
        assert one.about and one.license and one.address and one.split and one.pairing and one.folders
        assert one.samples is None or one.pairs is None or one.pairs <= one.samples
        assert not one.mirror or one.mirror.repo in one.summary
        assert datasets.summaries()[name] == one.summary
    assert "unofficial copy: dronefreak/NTIRE-Haze" in entry("nh-haze").summary


def test_the_parts_are_those_of_the_records():
    known = {}
    for path in RESULTS.glob("identity__*.json"):
        facts = json.loads(path.read_text())["dataset"]
        known[facts["name"]] = facts
    for name in catalogue.suites()["eval-subsets"]:
        facts = known[name]
        assert (facts["fingerprint"], facts["samples"]) == (entry(name).fingerprint, entry(name).samples)
        assert facts["pairs"] == entry(name).pairs


WHOLE = """[set]
about = "a set"
license = "none"
address = "https://example.org"
samples = 2
split = "test"
pairing = "a / b"
folders = ["Set"]
fingerprint = "ab"
mirror = { repo = "org/set" }
"""


def test_a_part_takes_from_the_whole_what_it_shares():
    made = catalogue.read_entries(
        WHOLE + '[own]\npart_of = "set"\nsamples = 1\n[picked]\npart_of = "set"\nnumbers = [2]'
    )
    whole, own, picked = (made[name] for name in ("set", "own", "picked"))
    assert (own.name, own.samples, own.folders, own.fingerprint, own.mirror) == ("own", 1, ("Set",), None, None)
    assert (picked.samples, picked.numbers, picked.fingerprint, picked.mirror) == (2, (2,), None, whole.mirror)


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('split = "test"\n', "", "split"),
        ("samples = 2", 'samples = "2"', "samples"),
        ("samples = 2", "samples = true", "samples"),
        ("samples = 2", "sample = 2", "sample"),
        ('folders = ["Set"]', 'folders = "Set"', "folders"),
        ('mirror = { repo = "org/set" }', 'mirror = { repos = "org/set" }', "mirror"),
        ('mirror = { repo = "org/set" }', 'layout = { hazi = ["a"] }', "layout"),
    ],
)
def test_an_entry_is_read_strictly(before, after, field):
    assert catalogue.read_entries(WHOLE)["set"].samples == 2
    with pytest.raises(ValueError, match=field):
        catalogue.read_entries(WHOLE.replace(before, after))


def test_a_suite_names_its_sets_once():
    parts = list(catalogue.suites()["eval-subsets"])
    assert datasets.expand(["eval-subsets", "sample", parts[0]]) == [*parts, "sample"]


@pytest.mark.parametrize(
    ("name", "folder", "files", "expected"),
    [
        ("nh-haze", "NH-HAZE", ["01_hazy.png", "01_GT.png"], {"01_hazy": "01_GT"}),
        ("dense-haze", "Dense_Haze_NTIRE19", ["hazy/07_hazy.png", "GT/07_GT.png"], {"07_hazy": "07_GT"}),
        (
            "o-haze",
            "# O-HAZY NTIRE 2018",
            ["hazy/01_outdoor_hazy.jpg", "GT/01_outdoor_GT.JPG"],
            {"01_outdoor_hazy": "01_outdoor_GT"},
        ),
        ("i-haze", "I-HAZE", ["hazy/35_indoor_hazy.jpg", "GT/35_indoor_GT.jpg"], {"35_indoor_hazy": "35_indoor_GT"}),
        ("nh-haze2", "NTIRE2021", ["NTIRE2021_Train_Hazy/01.png", "NTIRE2021_Train_HazeFree/01.png"], {"01": "01"}),
        (
            "sots-indoor",
            "SOTS/indoor",
            ["hazy/1400_1.png", "hazy/1400_10.png", "gt/1400.png"],
            {"1400_1": "1400", "1400_10": "1400"},
        ),
        ("sots-outdoor", "SOTS/outdoor", ["hazy/0001_0.8_0.2.jpg", "gt/0001.png"], {"0001_0.8_0.2": "0001"}),
        ("hsts", "HSTS", ["synthetic/synthetic/0586.jpg", "synthetic/original/0586.jpg"], {"0586": "0586"}),
        ("hsts-real", "HSTS", ["real-world/a.jpg", "synthetic/synthetic/0586.jpg"], {"a": None}),
        ("haze4k", "Haze4K/test", ["haze/1_0.89_1.56.png", "gt/1.png"], {"1_0.89_1.56": "1"}),
        ("reside-6k", "RESIDE-6K/test", ["hazy/0_1.jpg", "GT/0_1.jpg"], {"0_1": "0_1"}),
        ("rtts", "RTTS", ["JPEGImages/AM_Bing_211.png"], {"AM_Bing_211": None}),
        ("urhi", "URHI", ["YL_Google_1.jpeg"], {"YL_Google_1": None}),
        ("fattal", "Fattal", ["ny12_input.png"], {"ny12_input": None}),
        (
            "bedde",
            "BeDDE",
            [
                *("beijing/fog/beijing_1.png", "beijing/gt/beijing_clear.png", "beijing/mask/beijing_1.png"),
                *("chengdu/fog/chengdu_6.png", "chengdu/gt/chengdu_clear.png"),
            ],
            {"beijing/fog/beijing_1": "beijing_clear", "chengdu/fog/chengdu_6": "chengdu_clear"},
        ),
        (
            "8kdehaze-mini",
            "8KDehaze_mini",
            ["clear/a.png", "cloud_L1/a.png", "cloud_L4/a.png"],
            {"cloud_L1/a": "a", "cloud_L4/a": "a"},
        ),
        ("clear-20", "clear", ["images/0022.jpg"], {"0022": "0022"}),
    ],
)
def test_each_set_pairs_as_it_is_published(put, tmp_path, monkeypatch, name, folder, files, expected):
    put(tmp_path / folder, *files)
    (tmp_path / folder / "notes.txt").write_text("not an image")
    count = {"samples": len(expected), "pairs": sum(clear is not None for clear in expected.values())}
    monkeypatch.setattr(catalogue, "get", lambda name, one=entry(name): replace(one, **count, fingerprint=None))
    made = datasets.load(name, data_root=tmp_path)
    assert {sample.id: sample.clear and sample.clear.stem for sample in made.samples} == expected
    assert made.name == name


def test_the_customary_test_images_are_picked_by_their_numbers(put, tmp_path):
    names = [f"{number}_{kind}.png" for number in (1, 5, *range(50, 56)) for kind in ("hazy", "GT")]
    put(tmp_path / "NH-HAZE", *names)
    made = datasets.load("nh-haze-51-55", data_root=tmp_path)
    assert [sample.id for sample in made.samples] == [f"{number}_hazy" for number in range(51, 56)]
    with pytest.raises(
        DatasetError, match=r"holds 8 images, but nh-haze has 55\. Complete it\. It can be scored as folder:PATH"
    ):
        datasets.load("nh-haze", data_root=tmp_path)


def test_what_is_not_found_names_what_was_looked_for(tmp_path):
    with pytest.raises(
        DatasetError, match=r"does not hold sots-indoor: there is no SOTS/indoor/ or .* or sots-indoor/\. Give"
    ):
        datasets.load("sots-indoor", data_root=tmp_path)
    with pytest.raises(
        DatasetError, match=r"rtts has no copy on the Hub .* Give --data-root, the folder that holds RTTS/"
    ):
        datasets.load("rtts")
    with pytest.raises(DatasetError, match=r"No data set is called 'sots-indor'\. Did you mean sots-indoor"):
        datasets.load("sots-indor", data_root=tmp_path)


def test_other_bytes_never_go_under_the_name(put, tmp_path):
    put(tmp_path / "nh-haze2", *(f"{kind}/{number}.png" for kind in ("hazy", "clear") for number in range(21, 26)))
    with pytest.raises(DatasetError, match=r"holds other bytes than nh-haze2-5 .*not d69e721afe12"):
        datasets.load("nh-haze2-5", data_root=tmp_path)
    with pytest.raises(DatasetError, match="holds other bytes"):
        datasets.load("nh-haze2-5", data_root=tmp_path, limit=1)
    with pytest.raises(DatasetError, match=r"cannot be called 'nh-haze2-5'\. Choose another --name"):
        datasets.load(f"folder:{tmp_path / 'nh-haze2'}", name="nh-haze2-5")
    with pytest.raises(DatasetError, match=r"keeps its name\. Leave --name out"):
        datasets.load("nh-haze2-5", data_root=tmp_path, name="mine")


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def larger(tmp_path):
    """A pair as SOTS indoor was released: the clear image has 10 pixels more on each side."""
    noise = np.random.default_rng(0).integers(0, 256, (52, 60, 3), dtype=np.uint8)
    write(tmp_path / "SOTS/indoor/gt/1400.png", noise)
    write(tmp_path / "SOTS/indoor/hazy/1400_1.png", noise[10:-10, 10:-10])
    return tmp_path / "SOTS/indoor"


def test_a_known_border_is_cut_centrally_and_said(larger, tmp_path):
    one = replace(entry("sots-indoor"), samples=1, pairs=1)
    made = datasets.read_entry(one, larger)
    assert made.samples[0].border == 10
    assert made.notes == ("1 clear images of sots-indoor are cut centrally by 10 pixels on each side",)
    plain = datasets.Dataset("plain", tuple(replace(sample, border=0) for sample in made.samples))
    assert made.fingerprint != plain.fingerprint  # the same bytes, but not the same comparison

    method = Model(dehaze.load("identity", device="cpu"))
    metrics = {"ciede2000": get_metric("ciede2000")}
    record = runner.run(method, made, protocol.get("native-v1"), metrics, tmp_path / "out")
    assert record.metrics["ciede2000"].mean == 0  # of identical images; moved by a pixel, they would differ


@pytest.mark.parametrize("change", [1, -1])
def test_any_other_size_is_an_error(larger, change):
    size = (60 + 2 * change, 52 + 2 * change)
    with Image.open(larger / "gt/1400.png") as image:
        image.resize(size).save(larger / "gt/1400.png")
    with pytest.raises(DatasetError, match=r"Sizes differ: hazy/1400_1\.png is 40×32 but gt/1400\.png is"):
        read_folder(larger, entry("sots-indoor").layout)


def test_the_border_is_known_of_sots_indoor_alone(larger):
    with pytest.raises(DatasetError, match="Sizes differ"):
        datasets.load(f"folder:{larger}")


@pytest.mark.parametrize(
    ("name", "trained_on", "overlap"),
    [
        ("sots-indoor-15", ["RESIDE (ITS)", "clear-outdoor-1284"], ["RESIDE (ITS)"]),
        ("sots-outdoor", ["OTS", "NH-HAZE"], ["OTS"]),
        ("sots-outdoor-25-first3", ["reside_6k"], ["reside_6k"]),
        ("nh-haze2-5", ["NTIRE 2021 train", "NH-HAZE", "nh_haze2"], ["NTIRE 2021 train", "nh_haze2"]),
        ("nh-haze", ["NH-HAZE2", "dronefreak/NTIRE-Haze", "NH-HAZE train"], ["dronefreak/NTIRE-Haze", "NH-HAZE train"]),
        ("dense-haze-test-5", ["Dense-Haze 1-45", "O-HAZE"], ["Dense-Haze 1-45"]),
        ("o-haze-3", ["NH-HAZE", "Dense-Haze", "OHAZE"], ["OHAZE"]),
        ("rtts-25", ["RESIDE ITS", "URHI"], []),
        ("clear-20", ["clear-outdoor-1284"], []),
        ("folder:my-own", ["my-own", "other"], ["my-own"]),
        ("hub:org/my-own@main:default/test", ["my_own", "org"], ["my_own"]),
        ("sots-indoor", [], []),
    ],
)
def test_training_sets_that_overlap(name, trained_on, overlap):
    assert datasets.contaminated(name, trained_on) == overlap


def test_an_entry_serves_as_well_as_its_name():
    assert datasets.contaminated(entry("sots-indoor"), ["ITS", "Haze4K"]) == ["ITS"]
