"""What a run shows of its speed; the clock is the test's own."""

import pytest

from dehaze.training import progress
from dehaze.training.progress import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    return clock


def loader(clock: Clock, count: int, wait: float):
    for number in range(count):
        clock.now += wait
        yield number


def test_a_line_comes_each_minute_and_says_how_long_the_rest_takes(clock):
    said = []
    shown = Progress(0, 100, 8, said.append)
    for _ in shown.batches(loader(clock, 100, wait=1)):
        clock.now += 9
        shown.advance({"l1": 0.25})
    assert len(said) == 16  # 1000 s in steps of 10 s
    assert said[0] == "step 6 of 100: l1 0.2500; 0.8 crops/s, 0:15:40 left"
    assert said[-1].startswith("step 96 of 100") and said[-1].endswith("0:00:40 left")


def test_speed_and_waiting_leave_validation_out(clock):
    shown = Progress(0, 100, 4, lambda _: None)
    for number in shown.batches(loader(clock, 20, wait=0.5)):
        clock.now += 1.5
        shown.advance({})
        if number == 9:
            assert shown.figures() == {"crops_per_second": 2.0, "data_wait": 0.25}
            clock.now += 1000
    assert shown.figures() == {"crops_per_second": 2.0, "data_wait": 0.25}
    assert shown.figures() == {}


def test_a_run_that_goes_on_counts_from_its_checkpoint(clock):
    shown = Progress(90, 100, 8, lambda _: None)
    for _ in shown.batches(loader(clock, 5, wait=0)):
        clock.now += 10
        shown.advance({})
    assert shown.line({}).endswith("0.8 crops/s, 0:00:50 left")


def test_other_processes_say_nothing(clock):
    said = []
    shown = Progress(0, 100, 8, said.append, shown=False)
    for _ in shown.batches(loader(clock, 100, wait=10)):
        shown.advance({})
    assert not said
