from dataclasses import replace

import pytest
from typer.testing import CliRunner

from bench import cli, datasets
from bench.datasets import catalogue, prepared
from bench.datasets.files import Layout
from bench.errors import DatasetError
from bench.prepare import prepare
from tests.hub import TOKEN, HubServer


@pytest.fixture
def known(monkeypatch):
    """Make the catalogue know the set `tiny`, with what is given."""

    def make(**facts):
        entry = replace(catalogue.get("nh-haze"), name="tiny", samples=2, pairs=2, folders=("Tiny",), mirror=None)
        entry = replace(entry, **facts)
        monkeypatch.setattr(catalogue, "get", {"tiny": entry}.__getitem__)
        return entry

    return make


@pytest.fixture
def source(put, tmp_path):
    put(tmp_path / "root/Tiny", "01_hazy.png", "01_GT.png", "02_hazy.png", "02_GT.png")
    return tmp_path / "root/Tiny"


@pytest.mark.slow
def test_the_copy_is_read_by_every_loader_with_one_fingerprint(known, source, tmp_path, monkeypatch):
    from datasets import load_dataset

    known()
    made = prepare("tiny", source, tmp_path / "copies/tiny")
    folder = tmp_path / "copies/tiny"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "README.md",
        "clear/01_GT.png",
        "clear/02_GT.png",
        "hazy/01_hazy.png",
        "hazy/02_hazy.png",
        "metadata.parquet",
    ]
    expected = datasets.load("tiny", data_root=source.parent).fingerprint
    assert made.fingerprint == expected
    assert datasets.load(f"folder:{folder}").fingerprint == expected
    assert datasets.load("tiny", data_root=folder.parent).fingerprint == expected

    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path / "cache")
        rows = load_dataset("imagefolder", data_dir=str(folder), split="train")
        hashes = {"hazy_sha256", "clear_sha256"}
        assert set(rows.column_names) == {"id", "hazy", "clear", "clear_border"} | hashes
        assert rows["id"][:] == ["01_hazy", "02_hazy"]
        assert rows[1]["clear"].size == (24, 16)
        assert list(load_dataset(str(folder))) == ["test"]

        from huggingface_hub import HfApi

        api = HfApi(endpoint=hub.endpoint, token=TOKEN)
        api.create_repo("org/tiny", repo_type="dataset")
        api.upload_folder(folder_path=folder, repo_id="org/tiny", repo_type="dataset")
        assert datasets.load("hub:org/tiny").fingerprint == expected
        assert datasets.load("hub:org/tiny", limit=9).fingerprint == expected


def test_sets_of_several_folders_and_larger_clear_images_keep_their_ids_and_borders(known, put, tmp_path):
    root = tmp_path / "Tiny"
    put(root, "cloud_L1/a.png", "cloud_L2/a.png", size=(20, 12))
    put(root, "clear/a.png", size=(24, 16))
    known(layout=Layout(hazy=("cloud_l[1-4]",), border=2))
    made = prepare("tiny", root, tmp_path / "tiny")
    assert [(sample.id, sample.border) for sample in made.samples] == [("cloud_L1/a", 2), ("cloud_L2/a", 2)]
    assert made.notes == ("2 clear images of tiny are cut centrally by 2 pixels on each side",)
    again = datasets.load("tiny", data_root=tmp_path)
    assert (again.samples[0].border, again.fingerprint) == (2, made.fingerprint)
    assert datasets.load(f"folder:{tmp_path / 'tiny'}").fingerprint == made.fingerprint


def test_photographs_without_clear_images_have_no_such_column(known, put, tmp_path):
    put(tmp_path / "Tiny", "a.png", "b.png")
    known(pairs=0)
    prepare("tiny", tmp_path / "Tiny", tmp_path / "tiny")
    assert datasets.load(f"folder:{tmp_path / 'tiny'}").pairs == 0
    assert not (tmp_path / "tiny/clear").exists()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"samples": 55}, "holds 2 images, but tiny has 55. Complete it"),
        ({"pairs": 1}, "holds 2 pairs, but tiny has 1"),
        ({"fingerprint": "ab" * 32}, "holds other bytes than tiny .*not abababababab"),
    ],
)
def test_what_is_not_the_set_is_not_copied(known, source, tmp_path, facts, message):
    known(**facts)
    with pytest.raises(DatasetError, match=message):
        prepare("tiny", source, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_nothing_is_written_over(known, source, tmp_path):
    known()
    (tmp_path / "used").mkdir()
    (tmp_path / "used/thesis.txt").write_text("all of it")
    with pytest.raises(DatasetError, match="used is not empty"):
        prepare("tiny", source, tmp_path / "used")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file is not empty"):
        prepare("tiny", source, tmp_path / "file")


def test_a_copy_that_changed_is_refused(known, source, tmp_path):
    known()
    prepare("tiny", source, tmp_path / "tiny")
    image = tmp_path / "tiny/hazy/01_hazy.png"
    whole = image.read_bytes()
    image.write_bytes(whole + b"\0")
    with pytest.raises(DatasetError, match="changed since it was prepared: 01_hazy"):
        datasets.load(f"folder:{tmp_path / 'tiny'}")
    image.unlink()
    with pytest.raises(DatasetError, match=r"lacks hazy/01_hazy\.png\. Run 'python -m bench prepare' again"):
        datasets.load(f"folder:{tmp_path / 'tiny'}")


def test_no_damaged_table_crashes(known, source, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    known()
    prepare("tiny", source, tmp_path / "tiny")
    table = tmp_path / "tiny" / prepared.METADATA
    whole, rows = table.read_bytes(), pq.read_table(table)
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        table.write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=r"metadata\.parquet cannot be used"):
            datasets.load(f"folder:{tmp_path / 'tiny'}")
    outside = rows.set_column(1, "hazy_file_name", pa.array(["../secret.png", "hazy/02_hazy.png"]))
    for changed, message in (
        (rows.drop_columns("hazy_file_name"), "no column 'hazy_file_name'"),
        (rows.set_column(1, "hazy_file_name", pa.array([1, 2])), "cannot be used"),
        (rows.set_column(1, "hazy_file_name", pa.nulls(2, pa.string())), "cannot be used"),
        (outside, r"\.\./secret\.png lies outside"),
    ):
        pq.write_table(changed, table)
        with pytest.raises(DatasetError, match=message) as caught:
            datasets.load(f"folder:{tmp_path / 'tiny'}")
        assert "\n" not in str(caught.value)


def test_the_command(source, tmp_path):
    """RTTS is not 2 images; NH-HAZE's 51 to 55 are five pairs."""
    out = tmp_path / "out"
    result = CliRunner().invoke(cli.app, ["prepare", "rtts", "--from", str(source), "--output", str(out)])
    assert result.exit_code == 1
    assert "but rtts has 4322" in result.stderr
    result = CliRunner().invoke(cli.app, ["prepare", "nh-hase", "--from", str(source), "--output", str(out)])
    assert result.exit_code == 2
    assert "Did you mean nh-haze" in result.stderr


def test_the_command_prepares(put, tmp_path):
    put(tmp_path / "NH-HAZE", *(f"{number}_{kind}.png" for number in range(50, 56) for kind in ("hazy", "GT")))
    arguments = ["prepare", "nh-haze-51-55", "--from", str(tmp_path / "NH-HAZE"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("nh-haze-51-55: 5 images, 5 pairs, fingerprint ")
    assert len(list((tmp_path / "out/hazy").iterdir())) == 5
