"""Archives of predictions: the same record as from a folder, and a refusal for each that would do harm."""

import io
import zipfile
from dataclasses import replace

import pytest
from PIL import Image
from typer.testing import CliRunner

from bench import datasets, record
from bench.cli import app
from bench.errors import DatasetError
from bench.methods.archive import unpacked


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"set/{name}.png").write_bytes(png(ord(name)))
    return datasets.load(f"folder:{tmp_path / 'set'}")


@pytest.fixture
def pack(tmp_path):
    def make(members, name="made.zip", **options):
        with zipfile.ZipFile(tmp_path / name, "w", **options) as archive:
            for member, data in members:
                archive.writestr(member, data)
        return tmp_path / name

    return make


def png(color=0):
    file = io.BytesIO()
    Image.new("RGB", (24, 16), color).save(file, "PNG")
    return file.getvalue()


def found(path, dataset, **options):
    with unpacked(path, dataset, **options) as folder:
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("around", ["", "results/", "results\\"])
def test_an_archive_is_its_folder_with_or_without_one_around_it(dataset, pack, around):
    junk = [("__MACOSX/a.png", b"x"), (f"{around}.DS_Store", b"x"), (f"{around}notes.txt", b"x")]
    path = pack([(f"{around}a.png", png(1)), (f"{around}deep/b.png", png(2)), *junk])
    assert found(path, dataset) == {"a.png": png(1), "deep/b.png": png(2)}


def test_a_folder_that_the_samples_have_stays(dataset, pack):
    [first, _] = dataset.samples
    nested = replace(dataset, samples=(replace(first, id="deep/a"),))
    assert set(found(pack([("deep/a.png", png(2))]), nested)) == {"deep/a.png"}


def test_what_was_unpacked_is_gone_afterwards(dataset, pack):
    with unpacked(pack([("a.png", png())]), dataset) as folder:
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/tmp/a.png", "..\\a.png", "C:\\a.png", "a\n.png"])
def test_names_that_lead_outside_are_refused(dataset, pack, tmp_path, name):
    before = set(tmp_path.rglob("*"))
    path = pack([(name, png())])
    with pytest.raises(DatasetError, match="names a place outside itself"):
        found(path, dataset)
    assert set(tmp_path.rglob("*")) == before | {path}


def test_a_link_is_only_bytes(dataset, pack):
    link = zipfile.ZipInfo("a.png")
    link.external_attr = 0o120777 << 16
    assert found(pack([(link, "/etc/passwd")]), dataset) == {"a.png": b"/etc/passwd"}


def test_bombs_are_refused_before_they_go_off(dataset, pack):
    bomb = pack([("a.png", bytes(3_000_000)), ("deep/b.png", bytes(3_000_000))], compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10_000
    with pytest.raises(DatasetError, match=r"b\.png has more than 1 MB"):
        found(bomb, dataset, limit=4_000_000)
    with pytest.raises(DatasetError, match="holds 15 images, and folder:set 2"):
        found(pack([(f"{i}.png", b"") for i in range(15)]), dataset)
    with pytest.raises(DatasetError, match="too many members"):
        found(pack([(f"{i:050}.txt", b"") for i in range(11_000)]), dataset)
    with pytest.raises(DatasetError, match="uses a compression method that is not supported"):
        found(pack([("a.png", png())], compression=zipfile.ZIP_LZMA), dataset)


def test_a_size_that_lies_does_not_count(dataset, pack):
    path = pack([("a.png", bytes(2_000_000))], compression=zipfile.ZIP_DEFLATED)
    data = path.read_bytes().replace((2_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged in the archive"):
        found(path, dataset)


def test_archives_that_cannot_be_read_are_refused(dataset, pack, tmp_path):
    whole = pack([("a.png", png()), ("deep/b.png", png())]).read_bytes()
    for data, message in [
        (b"", "not a zip archive"),
        (b"<svg/>", "not a zip archive"),
        (whole[:-30], "not a zip archive"),
        (whole[: len(whole) // 2] + whole[len(whole) // 2 + 9 :], "damaged"),
    ]:
        (tmp_path / "bad.zip").write_bytes(data)
        with pytest.raises(DatasetError, match=message):
            found(tmp_path / "bad.zip", dataset)
    for names in ([f"{'a' * 300}.png"], ["x.png", "a.png", "a.png/b.png"]):
        with pytest.raises(DatasetError, match=r"made\.zip cannot be unpacked"):
            found(pack([(name, png()) for name in names]), dataset)
    with pytest.raises(DatasetError, match="does not exist"):
        found(tmp_path / "none.zip", dataset)
    with pytest.raises(DatasetError, match="twice"):
        with pytest.warns(UserWarning, match="Duplicate"):
            twice = pack([("a.png", png(1)), ("a.png", png(2))])
        found(twice, dataset)


def test_score_takes_an_archive_and_gives_the_record_of_its_folder(dataset, pack, tmp_path):
    path = pack([("out/a.png", png(1)), ("out/b.png", png(2))])
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    common = ["score", "--dataset", f"folder:{tmp_path / 'set'}", "--method", "m", "--metric", "visible_edges_sigma"]
    records = []
    for predictions in (path, tmp_path / "out"):
        output = tmp_path / f"records-{predictions.stem}"
        result = CliRunner().invoke(app, [*common, str(predictions), "--output", str(output)])
        assert result.exit_code == 0, result.output
        records.append(record.read(next(output.glob("*.json"))))
    assert records[0].metrics == records[1].metrics and records[0].method == records[1].method
