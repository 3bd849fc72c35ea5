import sys
from types import SimpleNamespace

import pytest
import torch

from dehaze import processes
from dehaze.errors import DehazeError
from dehaze.processes import Processes, join


def test_alone_it_costs_nothing(monkeypatch):
    for name in processes._COUNTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)  # whoever imports it fails
    assert join() == Processes(0, 1, 0)
    assert join().is_main
    join().wait()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError):
        join()


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    members = [Processes(index, 6, index % 3) for index in range(6)]  # two machines of three processes
    assert [member.device(None) for member in members] == ["cuda:0", "cuda:1", "cuda:0"] * 2
    assert members[1].device("cuda") == "cuda:1"
    assert members[1].device("cuda:0") == "cuda:0"
    assert members[1].device("cpu") == "cpu"
    assert Processes().device(None) is None


def test_a_process_that_is_gone_is_told(monkeypatch):
    def barrier():
        raise RuntimeError("Connection closed by peer\nmore")

    monkeypatch.setattr(torch, "distributed", SimpleNamespace(barrier=barrier))
    with pytest.raises(DehazeError, match=r"Another process has ended \(Connection closed by peer\)"):
        Processes(0, 2).wait()
