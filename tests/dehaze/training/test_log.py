import csv

from dehaze.training.log import Log


def test_columns_never_shift(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path)
    log.append({"step": 1, "l1": 0.5, "restored": 20.0})
    log.append({"step": 2, "density": 0.1, "l1": 0.4, "restored": 21.0})
    again = Log(path)
    again.append({"step": 3, "restored": 22.0})
    assert path.read_text().splitlines() == [
        "step,l1,restored,density", "1,0.5,20.0,", "2,0.4,21.0,0.1", "3,,22.0,",
    ]  # fmt: skip


def test_rows_after_the_checkpoint_are_written_again(tmp_path):
    path = tmp_path / "log.csv"
    for step in (10, 20, 30):
        Log(path).append({"step": step, "l1": step / 100})
    log = Log(path)
    log.keep_until(20)
    log.append({"step": 30, "l1": 0.7})
    with path.open() as file:
        assert [(row["step"], row["l1"]) for row in csv.DictReader(file)] == [
            ("10", "0.1"),
            ("20", "0.2"),
            ("30", "0.7"),
        ]
