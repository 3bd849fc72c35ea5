from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench import datasets
from bench.errors import DatasetError


def load(root, **options):
    return datasets.load(f"folder:{root}", **options)


def pairs_of(dataset):
    return {sample.hazy.name: sample.clear and sample.clear.name for sample in dataset.samples}


@pytest.mark.parametrize(
    ("hazy", "clear"),
    [
        ("51.png", "51.png"),
        ("51.jpg", "51.png"),
        ("0001_0.8_0.2.jpg", "0001.png"),
        ("1400_1.png", "1400.png"),
        ("01_hazy.png", "01_GT.png"),
        ("01_outdoor_hazy.jpg", "01_outdoor_GT.jpg"),
        ("IMG_2041.JPG", "img_2041.png"),
    ],
)
def test_pairs_by_name(put, tmp_path, hazy, clear):
    put(tmp_path, f"hazy/{hazy}", f"clear/{clear}", "hazy/other.png", "clear/other.png")
    dataset = load(tmp_path)
    assert pairs_of(dataset) == {hazy: clear, "other.png": "other.png"}
    assert dataset.pairs == 2


def test_the_names_of_whole_sets_pair(put, tmp_path):
    hazy = [
        f"{scene:04d}_{beta}_{airlight}.jpg" for scene in (1, 2, 11) for beta in (0.8, 1) for airlight in (0.04, 0.2)
    ]
    put(tmp_path, *(f"hazy/{name}" for name in hazy), "gt/0001.png", "gt/0002.png", "gt/0011.png")
    assert pairs_of(load(tmp_path)) == {name: f"{name[:4]}.png" for name in hazy}


def test_one_folder_with_hazy_and_gt_names(put, tmp_path):
    put(tmp_path, "01_hazy.png", "01_GT.png", "02_hazy.png", "02_GT.png")
    assert pairs_of(load(tmp_path)) == {"01_hazy.png": "01_GT.png", "02_hazy.png": "02_GT.png"}


def test_an_exact_name_beats_a_shortened_one(put, tmp_path):
    put(tmp_path, "hazy/a_1.png", "hazy/a.png", "clear/a_1.png", "clear/a.png")
    assert pairs_of(load(tmp_path)) == {"a.png": "a.png", "a_1.png": "a_1.png"}


def test_unpaired(put, tmp_path):
    put(tmp_path / "plain", "b.png", "a.jpg")
    (tmp_path / "plain" / "sources.csv").write_text("a,b")
    (tmp_path / "plain" / "._a.jpg").write_bytes(b"")
    dataset = load(tmp_path / "plain")
    assert [sample.id for sample in dataset.samples] == ["a", "b"]
    assert dataset.name == "folder:plain"
    assert dataset.pairs == 0

    put(tmp_path / "nested", "hazy/a.png")
    assert pairs_of(load(tmp_path / "nested")) == {"a.png": None}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["hazy/1.png", "hazy/2.png", "clear/1.png"], r"no clear image for 2\.png\. Give"),
        (["hazy/1.png", "clear/1.png", "clear/2.png"], r"has no hazy image for the clear image 2\.png\. Take"),
        (["hazy/1_2.png", "clear/1.png", "clear/1_GT.png"], r"1_2\.png \(1\.png or 1_GT\.png\?\)"),
        (["hazy/1_2_3.png", "clear/1_2.png", "clear/1.png"], r"1_2_3\.png \(1_2\.png or 1\.png\?\)"),
        (["hazy/1.png", "clear/1.png", "clear/1.jpg"], r"same name: 1\.(png|jpg), 1\.(png|jpg)\. Keep"),
        (["hazy/1.png", "hazy/1.jpg"], r"same name: 1\.(png|jpg), 1\.(png|jpg)\. Keep"),
        (["hazy/1.png", "clear/1.png", "gt/1.png"], r"both clear/ and gt/"),
        (["1.png", "clear/1.png"], r"clear/ but no hazy/"),
        (["01_GT.png"], r"has no hazy image for the clear image 01_GT\.png"),
        (["images/1.png"], r"holds no image\. Images lie in images inside it"),
    ],
)
def test_every_doubt_is_an_error_that_names_the_file(put, tmp_path, names, message):
    put(tmp_path, *names)
    with pytest.raises(DatasetError, match=message) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_sizes_must_agree(put, tmp_path):
    put(tmp_path, "hazy/1.png", "hazy/2.png", "clear/1.png")
    put(tmp_path, "clear/2.png", size=(30, 20))
    with pytest.raises(DatasetError, match=r"hazy/2\.png is 24×16 but clear/2\.png is 30×20.*Crop"):
        load(tmp_path)


def test_sizes_are_compared_upright(put, tmp_path):
    put(tmp_path, "clear/1.png", size=(16, 24))
    turned = Image.new("RGB", (24, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "hazy").mkdir()
    turned.save(tmp_path / "hazy/1.jpg", exif=exif)
    assert load(tmp_path).pairs == 1


def test_a_damaged_image_is_left_to_the_run(put, tmp_path):
    put(tmp_path, "hazy/1.png", "clear/1.png", "clear/2.png")
    (tmp_path / "hazy/2.png").write_bytes(b"not an image")
    assert load(tmp_path).pairs == 2


@pytest.mark.parametrize("spec", ["sampel", "folder:", "hub:x", ""])
def test_unknown_specs(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError):
        datasets.load(spec)


def test_names(put, tmp_path):
    put(tmp_path / "set", "a.png", "b.png", "c.png")
    assert load(tmp_path / "set", name="mine").name == "mine"
    assert load(tmp_path / "set", limit=2).name == "folder:set-first2"
    assert load(tmp_path / "set", limit=3).name == "folder:set"
    with pytest.raises(DatasetError, match="Choose another"):
        load(tmp_path / "set", name="sample")
    with pytest.raises(DatasetError, match="keeps its name"):
        datasets.load("sample", name="mine")
    with pytest.raises(DatasetError, match="is no folder"):
        load(tmp_path / "missing")


def test_the_fingerprint_follows_the_bytes_and_not_the_place(put, tmp_path):
    names = ["hazy/1.png", "hazy/2.png", "clear/1.png", "clear/2.png"]
    put(tmp_path / "here", *names)
    put(tmp_path / "there", *names)
    here, there = load(tmp_path / "here"), load(tmp_path / "there")
    assert here.fingerprint == there.fingerprint
    assert load(tmp_path / "here", limit=1).fingerprint != here.fingerprint
    with (tmp_path / "there/clear/2.png").open("ab") as file:
        file.write(b"\0")
    assert load(tmp_path / "there").fingerprint != here.fingerprint


def test_the_shipped_sample():
    dataset = datasets.load("sample")
    real = [sample for sample in dataset.samples if sample.id.startswith("real/")]
    assert dataset.name == "sample"
    assert dataset.pairs >= 6
    assert len(real) >= 4
    assert dataset.pairs + len(real) == len(dataset.samples)
    assert all(sample.clear is None for sample in real)


stems = st.sets(st.text("ab01_.", min_size=1, max_size=5), min_size=1, max_size=6)


@given(stems, stems, st.randoms())
def test_pairing_never_depends_on_the_order_of_files(hazy, clear, random):
    hazy, clear = [Path("hazy", f"{stem}.png") for stem in hazy], [Path("clear", f"{stem}.png") for stem in clear]

    def outcome():
        try:
            partners = datasets.pair(hazy, clear)
        except DatasetError:
            return None
        assert partners.keys() == set(hazy)
        assert set(partners.values()) == set(clear)
        return partners

    before = outcome()
    random.shuffle(hazy)
    random.shuffle(clear)
    assert outcome() == before
