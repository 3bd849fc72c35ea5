"""Runs that were stopped, have finished before, or find what they wrote damaged."""

from dataclasses import replace

import pytest
from PIL import Image

from bench import datasets, environment, journal, runner
from bench.errors import RecordError, RunError
from tests.bench.helpers import NATIVE, Counting, Notes, mean_value, psnr, same


def test_a_stopped_run_continues_where_it_was(put, tmp_path):
    put(tmp_path / "set", *(f"{kind}/{number}.png" for kind in ("hazy", "clear") for number in range(9)))
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")

    class Interrupted(Counting):
        def restore_image(self, sample, hazy):
            if sample.id == "5":
                raise KeyboardInterrupt
            return super().restore_image(sample, hazy)

    with pytest.raises(KeyboardInterrupt):
        runner.run(Interrupted(), dataset, NATIVE, psnr(), tmp_path / "out")
    lines = tmp_path / "out" / "identity__folder-set__native-v1.journal"
    assert list(lines.parent.iterdir()) == [lines]
    with lines.open("ab") as file:
        file.write(b'{"id":"8","width":24,"hei')  # as a crash in mid-write leaves it
    watcher, restorer = Notes(), Counting()
    resumed = runner.run(restorer, dataset, NATIVE, psnr(), tmp_path / "out", watcher=watcher)
    assert watcher.notes == []
    assert restorer.asked == ["5", "6", "7", "8"]
    assert same(resumed, runner.run(Counting(), dataset, NATIVE, psnr(), tmp_path / "unbroken"))


def test_a_finished_run_is_kept_until_something_changes(pairs, put, tmp_path):
    first = runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path / "out")
    watcher, restorer = Notes(), Counting()
    assert runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out", watcher=watcher) == first
    assert restorer.asked == []
    assert "already scored" in watcher.notes[0]

    runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out", resume=False)
    assert len(restorer.asked) == 4
    runner.run(restorer, pairs, NATIVE, psnr() | {"brightness": mean_value()}, tmp_path / "out")
    assert len(restorer.asked) == 8
    runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out", options={"fade_stats": "ab"})
    assert len(restorer.asked) == 12
    restorer.method = replace(restorer.method, weights_sha256="ab")
    runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out")
    assert len(restorer.asked) == 16
    put(tmp_path / "set", "hazy/1.png", size=(24, 16))
    Image.new("RGB", (24, 16)).save(tmp_path / "set/clear/1.png")
    runner.run(restorer, datasets.load(f"folder:{tmp_path / 'set'}"), NATIVE, psnr(), tmp_path / "out")
    assert len(restorer.asked) == 20


def test_only_failures_are_tried_again(pairs, tmp_path):
    class Moody(Counting):
        def restore_image(self, sample, hazy):
            made = super().restore_image(sample, hazy)
            if sample.id == "2" and self.asked.count("2") == 1:
                raise MemoryError("for a moment")
            return made

    restorer = Moody()
    made = runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out")
    assert [failure.id for failure in made.failures] == ["2"]
    again = runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out")
    assert restorer.asked == ["0", "1", "2", "3", "2"]
    assert same(again, runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path / "other"))


def test_an_unfinished_run_of_something_else_is_not_continued(pairs, tmp_path):
    class Interrupted(Counting):
        def restore_image(self, sample, hazy):
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().restore_image(sample, hazy)

    with pytest.raises(KeyboardInterrupt):
        runner.run(Interrupted(), pairs, NATIVE, psnr(), tmp_path / "out")
    watcher, restorer = Notes(), Counting()
    restorer.method = replace(restorer.method, weights_sha256="ab")
    scores = psnr() | {"brightness": mean_value()}
    made = runner.run(restorer, pairs, NATIVE, scores, tmp_path / "out", watcher=watcher)
    assert len(restorer.asked) == 4
    assert watcher.notes == [
        "identity on folder:set (native-v1): the unfinished run differed in method.weights_sha256, metrics "
        "and is not continued"
    ]
    assert made.metrics["brightness"].count == 4


def test_a_full_disk_loses_nothing(pairs, tmp_path, monkeypatch):
    append = journal.Journal.append

    def full(self, row):
        if row.id == "2":
            raise OSError(28, "No space left on device")
        append(self, row)

    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"the disk is full.*2 images .* are kept"):
        patch.setattr(journal.Journal, "append", full)
        runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path / "out")

    def no_room(*_):
        raise RecordError("x.parquet cannot be written: No space left on device")

    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"No space.*4 images .* are kept"):
        patch.setattr(runner, "write_rows", no_room)
        runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path / "out")

    restorer = Counting()
    made = runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out")
    assert restorer.asked == []
    assert made.metrics["psnr"].count == 4


def test_an_output_that_cannot_be_written(pairs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path / "file")


@pytest.mark.parametrize("damage", ["{", "", "[]", "cut", "changed", "lacking"])
def test_a_damaged_record_is_set_aside_and_the_run_goes_on(damage, pairs, tmp_path):
    made = runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path)
    path = tmp_path / f"{made.stem}.json"
    whole = path.read_text()
    text = {"cut": whole[:-300], "changed": whole.replace('"samples": 4', '"samples": 5'), "lacking": '{"schema": 4}'}
    rows = path.with_suffix(".parquet").read_bytes()
    for number in ("", "2"):  # a second one takes another name
        path.write_text(text.get(damage, damage))
        watcher, restorer = Notes(), Counting()
        again = runner.run(restorer, pairs, NATIVE, psnr(), tmp_path, watcher=watcher, resume=not number)
        assert len(restorer.asked) == 4 and same(again, made)
        assert f"It is now {path.name}.damaged{number}" in watcher.notes[0]
        assert path.with_name(f"{path.name}.damaged{number}").read_text() == text.get(damage, damage)
    assert path.with_name(f"{made.stem}.parquet.damaged").read_bytes() == rows  # it may hold other metrics


def test_a_record_of_a_later_schema_is_not_damaged(pairs, tmp_path):
    path = tmp_path / "identity__folder-set__native-v1.json"
    path.write_text('{"schema": 99}')
    restorer = Counting()
    with pytest.raises(RecordError, match="has schema 99"):
        runner.run(restorer, pairs, NATIVE, psnr(), tmp_path)
    assert restorer.asked == [] and path.exists()


def test_a_run_is_not_continued_by_other_code(pairs, tmp_path, monkeypatch):
    restorer = Counting()
    runner.run(restorer, pairs, NATIVE, psnr(), tmp_path)
    monkeypatch.setattr(environment, "code", lambda: "changed")
    runner.run(restorer, pairs, NATIVE, psnr(), tmp_path)
    assert len(restorer.asked) == 8


def test_a_damaged_journal_costs_only_the_damaged_lines(pairs, tmp_path):
    class Interrupted(Counting):
        def restore_image(self, sample, hazy):
            if sample.id == "3":
                raise KeyboardInterrupt
            return super().restore_image(sample, hazy)

    with pytest.raises(KeyboardInterrupt):
        runner.run(Interrupted(), pairs, NATIVE, psnr(), tmp_path)
    [path] = tmp_path.glob("*.journal")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:9] + b"\n", lines[3]]))
    restorer = Counting()
    made = runner.run(restorer, pairs, NATIVE, psnr(), tmp_path)
    assert restorer.asked == ["1", "3"]
    assert made.metrics["psnr"].count == 4
