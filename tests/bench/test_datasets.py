from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench import datasets
from bench.errors import DatasetError
from dehaze.io.names import PHOTO_SUFFIXES
from dehaze.io.photo import read_photo


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
        (["hazy/s1/0.png", "clear/s1/0.png"], r"in clear/s1, hazy/s1\. Put them directly into clear/ and hazy/\."),
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


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_compared_upright(put, tmp_path, suffix, orientation):
    put(tmp_path, "clear/1.png", size=(24, 16) if orientation < 5 else (16, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "hazy").mkdir()
    Image.new("RGB", (24, 16)).save(tmp_path / f"hazy/1{suffix}", exif=exif)
    (sample,) = load(tmp_path).samples
    assert datasets.upright_size(sample.hazy) == read_photo(sample.hazy).pixels.shape[1::-1]


def test_every_image_that_dehaze_takes_is_scored(put, tmp_path):
    put(tmp_path, "a.png", "b.avif", "c.jp2", "d.jfif", "e.ppm", "f.gif", "g.jpe", "h.JPG")
    put(tmp_path, "@eaDir/a.png", ".thumbnails/a.png", "._a.png")
    dataset = load(tmp_path)
    assert [sample.id for sample in dataset.samples] == list("abcdefgh")
    assert dataset.notes == ()
    assert datasets.SUFFIXES is PHOTO_SUFFIXES


def test_what_is_not_taken_is_named(put, tmp_path):
    put(tmp_path / "set", "hazy/1.png", "clear/1.png", "trans/1.png", "hazy/a/b/2.png")
    for name in ("hazy/2.dng", "README.txt", "clear/Thumbs.db", "clear/.DS_Store"):
        (tmp_path / "set" / name).touch()
    (note,) = load(tmp_path / "set").notes
    assert note == "set holds files that are not scored: README.txt, hazy/2.dng, hazy/a/b/, trans/1.png"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "sub/2.png"], r"holds images of its own and images in sub/\. Name"),
        (["1.png", "a/2.png", "b/c/2.png"], r"images in a/, b/c/\."),
        (["hazy/1.png", "hazy/sub/2.png"], r"holds images in hazy/ and images in hazy/sub/\."),
        (["hazy/1.png", "clear/1.png", "clear/old/1.png"], r"holds images in clear/ and images in clear/old/\."),
    ],
)
def test_images_in_a_folder_and_inside_it_are_refused(put, tmp_path, names, message):
    put(tmp_path, *names)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("mode", "name"), [("RGBA", "1.png"), ("LA", "1.png"), ("RGBA", "1.tif"), ("RGBA", "1.webp"), ("RGBA", "1.gif")]
)
def test_transparent_pixels_of_a_clear_image_are_refused(put, tmp_path, mode, name):
    put(tmp_path, "hazy/1.png", "hazy/2.png", "clear/2.png", size=(8, 8))
    opaque = Image.new("RGBA", (8, 8), (9, 9, 9, 255))
    opaque.save(tmp_path / "clear/1.png")
    assert load(tmp_path).pairs == 2
    (tmp_path / "clear/1.png").unlink()
    opaque.putpixel((3, 3), (9, 9, 9, 0))
    opaque.convert(mode).save(tmp_path / "clear" / name, lossless=True)
    with pytest.raises(DatasetError, match=rf"transparent pixels.*: clear/{name}\. Crop"):
        load(tmp_path)


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
