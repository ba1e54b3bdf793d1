"""What the kernel grants a loop, asked for and given back; as an ordinary user too."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from functools import partial

import pytest
from motoric.control.realtime import PRIORITY, Realtime, scheduling

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduling classes")

# Without root's rights, and with the limits a user has by default.
ORDINARY = """
import os, resource, sys
from motoric.control.realtime import scheduling
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (2**16, 2**16))
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
with scheduling(sys.argv[1]) as granted:
    granted.enter()
    print(granted, os.sched_getscheduler(0) == os.SCHED_OTHER)
    granted.leave()
"""


def ordinary(wish: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", ORDINARY, wish], capture_output=True, text=True, timeout=60
    )


@linux
@pytest.mark.parametrize("wish", ["auto", "off"])
def test_an_ordinary_user_runs_without(wish):
    ran = ordinary(wish)
    assert ran.stdout == "SCHED_FIFO no, memory locked no True\n", ran.stderr


@linux
def test_an_ordinary_user_who_insists_is_told_what_to_set():
    ran = ordinary("on")
    assert ran.returncode == 1
    assert "NotPermitted: realtime: SCHED_FIFO is not permitted" in ran.stderr
    assert "/etc/security/limits.conf" in ran.stderr


@linux
def test_what_is_granted_is_for_the_loops_threads_and_taken_back():
    with scheduling("auto") as granted:
        seen = []

        def thread():
            granted.enter(above=1)
            seen.append((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))
            child = "import os; print(os.sched_getscheduler(0))"
            seen.append(int(subprocess.check_output([sys.executable, "-c", child])))
            granted.leave()
            seen.append(os.sched_getscheduler(0))

        worker = threading.Thread(target=thread)
        worker.start()
        worker.join()
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    scheduled, child, left = seen
    if granted.fifo:
        assert scheduled == (os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, PRIORITY + 1)
    assert child == left == os.SCHED_OTHER


def test_off_asks_for_nothing():
    with scheduling("off") as granted:
        assert granted == Realtime()


@pytest.mark.parametrize("wish", ["auto", "off"])
def test_no_garbage_is_collected_meanwhile_and_it_is_again_after(wish, request):
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(0.003)

    def loop():
        with scheduling(wish):
            assert not gc.isenabled()
            raise RuntimeError("in the loop")

    with pytest.raises(RuntimeError, match="in the loop"):
        loop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert sys.getswitchinterval() == 0.003


def test_a_wish_that_is_none():
    with pytest.raises(ValueError, match="realtime: 'yes', expected one of auto, on, off"):
        next(scheduling("yes").gen)  # type: ignore[attr-defined]
