import pytest

from dehaze.allowance import Allowance
from dehaze.errors import DehazeError


def test_each_visitor_has_their_own_share_of_each_time():
    now = [0.0]
    allowance = Allowance(10, 600, clock=lambda: now[0])
    allowance.take("a", 6)
    now[0] = 60
    allowance.take("a", 4)
    with pytest.raises(DehazeError, match=r"10 megapixels restored within 10 minutes.* Come back in 9 minutes"):
        allowance.take("a", 1)
    allowance.take("b", 10)
    now[0] = 600  # the first six count no more
    allowance.take("a", 6)
    with pytest.raises(DehazeError):
        allowance.take("a", 1)


def test_one_photograph_always_passes():
    Allowance(10, 600).take("a", 60)


def test_visitors_of_the_past_are_forgotten():
    now = [0.0]
    allowance = Allowance(10, 600, clock=lambda: now[0])
    for i in range(100):
        allowance.take(str(i), 1)
    now[0] = 601
    allowance.take("new", 1)
    assert list(allowance._taken) == ["new"]
