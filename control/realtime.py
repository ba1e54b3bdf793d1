"""What Linux gives a control loop beyond its defaults, and only while the loop runs.

SCHED_FIFO: the loop's threads run before everything else that is not urgent. Locked memory: no
page of the process is fetched from disk in the middle of a tick. Both need permission (root, or
`rtprio` and `memlock` in limits.conf). Timers as exact as the hardware's need none.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

PRIORITY = 50  # of the loop, of 1 to 99; the kernel's own interrupt threads have 50 too
WISHES = ("auto", "on", "off")
SWITCH_INTERVAL = 0.0005  # s a thread of ours may hold the interpreter against another
_PR_SET_TIMERSLACK, _MCL_CURRENT, _MCL_FUTURE, _CAP_IPC_LOCK = 29, 1, 2, 14


class NotPermitted(ValueError):
    """What was asked for needs a permission that is not there; one line says which."""


@dataclass(frozen=True)
class Realtime:
    """What was granted. `enter` is called by each thread that shall have it."""

    fifo: bool = False
    locked: bool = False
    exact: bool = False  # timers

    def enter(self, above: int = 0) -> None:
        """Give the calling thread the loop's priority, or one higher or lower by `above`."""
        if self.exact:
            _prctl(_PR_SET_TIMERSLACK, 1)
        if self.fifo:
            # RESET_ON_FORK: processes started from here (a simulator) are ordinary ones.
            os.sched_setscheduler(
                0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY + above)
            )

    def leave(self) -> None:
        """Make the calling thread an ordinary one again."""
        if self.fifo:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if self.exact:
            _prctl(_PR_SET_TIMERSLACK, 0)

    def __str__(self) -> str:
        fifo, locked = ("yes" if granted else "no" for granted in (self.fifo, self.locked))
        return f"SCHED_FIFO {fifo}, memory locked {locked}"


@contextlib.contextmanager
def scheduling(wish: str) -> Iterator[Realtime]:
    """Lock the process's memory and find out what its threads may have, for the length of a loop.

    wish: "on" raises NotPermitted where something is missing, "auto" takes what there is,
    "off" changes nothing. Garbage collection, which takes milliseconds, is off in any case:
    reference counts suffice for the length of a loop.
    """
    if wish not in WISHES:
        raise ValueError(f"realtime: {wish!r}, expected one of {', '.join(WISHES)}")
    granted = Realtime() if wish == "off" else _ask()
    try:
        if wish == "on" and not granted.fifo:
            raise NotPermitted(
                "realtime: SCHED_FIFO is not permitted; run as root, or set rtprio (50 or more) "
                "in /etc/security/limits.conf"
            )
        if wish == "on" and not granted.locked:
            raise NotPermitted(
                "realtime: locking memory is not permitted; run as root, or set memlock to "
                "unlimited in /etc/security/limits.conf"
            )
        interval, collects = sys.getswitchinterval(), gc.isenabled()
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            yield granted
        finally:
            gc.unfreeze()
            if collects:
                gc.enable()
            sys.setswitchinterval(interval)
    finally:
        if granted.locked:
            _libc().munlockall()


def _ask() -> Realtime:
    """Try each; what was only tried is undone, locked memory stays locked."""
    if sys.platform != "linux":
        return Realtime()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY + 1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        fifo = True
    except OSError:
        fifo = False
    locked = _may_lock() and _libc().mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0
    return Realtime(fifo, locked, exact=True)


def _may_lock() -> bool:
    """Without limit only: under a limit, a later allocation would fail in mid-walk."""
    import resource

    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    _libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0)
