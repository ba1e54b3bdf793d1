"""What tests of robots share."""

from __future__ import annotations

import functools
import os
import threading

import pytest
from motoric.control.realtime import PRIORITY, Realtime
from motoric.control.supervisor import Supervisor, Thresholds


@pytest.fixture
def quick(monkeypatch):
    """Deployments rise, lie down and damp in less than half the usual time."""
    phases = Thresholds(soft_start=0.8, lie_down=0.6, damp=0.5)
    short = functools.partial(Supervisor, thresholds=phases)
    monkeypatch.setattr("motoric.hardware.runtime.deploy.Supervisor", short)


@pytest.fixture
def urgent(monkeypatch):
    """A set of the threads, named by their function, that ran below the loop's priority."""
    found, enter = set(), Realtime.enter

    def entered(granted, above=0):
        enter(granted, above)
        name = threading.current_thread().name
        if granted.fifo:
            assert os.sched_getparam(0).sched_priority == PRIORITY + above, name
        if above == -1:
            found.add(name.partition("(")[2].rstrip(")") or name)

    monkeypatch.setattr(Realtime, "enter", entered)
    return found
