import pytest

from bench.journal import Journal
from bench.record import Failure, Row
from dehaze.processes import Processes


def rows(*ids, **values):
    return [Row(id=id_, values=values) for id_ in ids]


@pytest.fixture
def write(tmp_path):
    """Write rows as one process of several, one after the other."""

    def call(index, count, *rows, inputs=None, resume=True):
        log = Journal(tmp_path / "a.journal", inputs or {"model": "x"}, resume, Waiting(index, count))
        for row in rows:
            log.append(row)
        log.close()
        return log

    return call


class Waiting(Processes):
    """Processes that are played one after the other, the main one first."""

    def wait(self):
        pass


def names(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_each_process_writes_a_file_and_the_next_run_has_all(write, tmp_path):
    write(0, 3, *rows("a", "d"))
    write(1, 3, *rows("b"))
    write(2, 3, *rows("c"))
    assert names(tmp_path) == ["a.journal", "a.journal.1", "a.journal.2"]
    assert write(0, 1).rows.keys() == {"a", "b", "c", "d"}
    assert names(tmp_path) == ["a.journal"]
    assert write(1, 2).rows.keys() == {"a", "b", "c", "d"}


def test_the_main_process_collects_what_the_others_wrote(tmp_path, write):
    main = Journal(tmp_path / "a.journal", {"model": "x"}, processes=Waiting(0, 3))
    failed = Row(id="b", failures=(Failure(id="b", stage="read", reason="damaged"),))
    write(1, 3, failed)
    write(2, 3, *rows("c", psnr=float("inf")))
    main.append(rows("a")[0])
    assert main.collect() == {"b": failed, "c": rows("c", psnr=float("inf"))[0]}
    main.remove()
    assert names(tmp_path) == []


def test_failures_and_cut_lines_are_not_taken_over(write, tmp_path):
    write(0, 2, *rows("a"), Row(id="b", failures=(Failure(id="b", stage="read", reason="damaged"),)))
    write(1, 2, *rows("c", "d"))
    other = tmp_path / "a.journal.1"
    other.write_bytes(other.read_bytes()[:-5])
    assert write(0, 1).rows.keys() == {"a", "c"}


def test_a_file_of_another_run_is_not_taken_over(write, tmp_path):
    write(0, 2, *rows("a"))
    write(1, 2, *rows("b"))
    other = write(0, 2, inputs={"model": "y"})
    assert (other.rows, other.stale) == ({}, ["model"])
    assert names(tmp_path) == ["a.journal"]


def test_nothing_is_taken_over_when_not_asked_to(write, tmp_path):
    write(0, 2, *rows("a"))
    write(1, 2, *rows("b"))
    assert write(0, 1, resume=False).rows == {}
    assert write(0, 1).rows == {}


def test_files_of_other_names_are_left_alone(write, tmp_path):
    for name in ("a.journal.txt", "a.journal.1.json", "ab.journal.1", "a.b.journal"):
        (tmp_path / name).write_text("")
    write(0, 1).remove()
    assert len(names(tmp_path)) == 4


def test_a_flipped_bit_costs_the_image_and_never_changes_a_number(write, tmp_path):
    path = tmp_path / "a.journal"
    kept = write(0, 1, *(Row(id=id_, width=24, height=16, seconds=0.5, values={"psnr": 21.25}) for id_ in "abc"))
    whole = path.read_bytes()
    rows = Journal(path, {"model": "x"}).rows
    start = whole.index(b"\n") + 1
    for position in range(start, len(whole)):
        for bit in (0, 3):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            found = kept._read(path)
            assert len(found) < 3
            assert found.items() <= rows.items()
