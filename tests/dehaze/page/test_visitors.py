import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from dehaze.errors import DehazeError
from dehaze.page.visitors import Allowance, Stop, Turns, address


@pytest.mark.parametrize(
    ("forwarded", "proxies", "visitor"),
    [
        ([], 0, "192.0.2.1"),
        (["198.51.100.7"], 0, "192.0.2.1"),  # nobody in front is trusted: a client wrote it
        (["198.51.100.7"], 1, "198.51.100.7"),
        (["203.0.113.9, 198.51.100.7"], 1, "198.51.100.7"),  # the client forged the first
        (["203.0.113.9", "198.51.100.7"], 1, "198.51.100.7"),  # the same in lines of their own
        (["203.0.113.9, 198.51.100.7, 10.0.0.1"], 2, "198.51.100.7"),
        (["198.51.100.7"], 2, "192.0.2.1"),  # fewer hops than there are proxies: not to be believed
        (["2001:db8:1:2:aaaa::1"], 1, "2001:db8:1:2::/64"),
        (["2001:db8:1:2:bbbb::2"], 1, "2001:db8:1:2::/64"),  # one visitor has all of such a network
        (["unknown"], 1, "unknown"),
        ([""], 1, "192.0.2.1"),
    ],
)
def test_visitors_are_told_apart_by_what_no_client_can_forge(forwarded, proxies, visitor):
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    assert address({"headers": headers, "client": ("192.0.2.1", 5000)}, proxies) == visitor
    assert address({"headers": [], "client": None}) == ""


def test_each_visitor_has_their_own_share_of_each_time():
    now = [0.0]
    allowance = Allowance({"megapixels": 10, "photographs": 5}, 600, clock=lambda: now[0])
    allowance.take("a", {"megapixels": 6})
    now[0] = 60
    allowance.take("a", {"megapixels": 4, "photographs": 1})
    with pytest.raises(DehazeError, match=r"10 megapixels in 10 minutes.* Come back in 9 minutes"):
        allowance.take("a", {"megapixels": 1})
    with pytest.raises(DehazeError, match="5 photographs in 10 minutes"):
        allowance.take("a", {"photographs": 5})
    allowance.take("b", {"megapixels": 10})
    now[0] = 600  # the first six count no more
    allowance.take("a", {"megapixels": 6})
    with pytest.raises(DehazeError):
        allowance.take("a", {"megapixels": 1})


def test_one_photograph_always_passes():
    Allowance({"megapixels": 10}, 600).take("a", {"megapixels": 60})


def test_visitors_of_the_past_are_forgotten():
    now = [0.0]
    allowance = Allowance({"megapixels": 10}, 600, clock=lambda: now[0])
    for i in range(100):
        allowance.take(str(i), {"megapixels": 1})
    now[0] = 601
    allowance.take("new", {"megapixels": 1})
    assert list(allowance._taken) == ["new"]


def test_one_works_at_a_time_and_who_was_served_longest_ago_is_next():
    turns, order, at_work = Turns(), [], []
    begun, all_wait = threading.Event(), threading.Event()

    def work(visitor, wait=None):
        with turns(visitor):
            at_work.append(visitor)
            assert len(at_work) == 1
            begun.set()
            if wait:
                wait(10)
            order.append(visitor)
            at_work.pop()

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(work, "a", all_wait.wait)
        begun.wait(10)
        others = []
        for visitor in "aaaabbc":
            others.append(pool.submit(work, visitor))
            while sum(map(len, turns._waiting.values())) <= len(others):  # the first is at work, and in the line
                time.sleep(0.001)
        all_wait.set()
        for one in (first, *others):
            one.result(10)
    assert order == ["a", *"bca", *"ba", *"aa"]  # "b" came after four of "a", who had just been served


def test_a_turn_that_fails_ends():
    turns = Turns()
    with pytest.raises(KeyError), turns("a"):
        raise KeyError
    with turns("b"):
        pass


def test_a_run_is_stopped_once():
    stop, page, other = Stop(), SimpleNamespace(session_hash="x"), SimpleNamespace(session_hash="y")
    assert not stop.ask(page)  # there is none, and so the next is not stopped
    stop.begin(page)
    assert not stop.asked(page)
    assert stop.ask(page) and stop.asked(page) and not stop.asked(other) and not stop.asked(None)
    stop.end(page)
    assert not stop.ask(page) and not stop.asked(page)
