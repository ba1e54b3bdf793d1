"""Who stands beside the robot: the e-stop by key and by signal, the key to end, and other keys."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from motoric.hardware.robot import STOPS
from motoric.hardware.sources import Source

STOP, STOP_TYPING, END = b" \r\ne", b"\x1b", b"q"


class Operator:
    """The e-stop, by key and by signal, and the key to end.

    Space, Enter, e, Ctrl-C, Ctrl-Z, SIGTERM and a terminal that is closed damp the motors at
    once (`stop` is called with the reason); q lies the robot down. Other keys go to the `source`
    of goals. While a line is typed for it all of them do, and Escape is the e-stop instead.
    """

    def __init__(self, keys: bool, stop: Callable[[str], None], source: Source) -> None:
        self.keys = keys and sys.stdin is not None and sys.stdin.isatty()
        self._stop, self._source = stop, source
        self.end = False

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        previous, terminal = {}, None
        if threading.current_thread() is threading.main_thread():
            for name in STOPS:
                number = getattr(signal, name)
                previous[number] = signal.signal(number, self._signal)
        if self.keys:
            import termios
            import tty

            terminal = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        try:
            yield
        finally:
            if terminal is not None:
                import termios

                with contextlib.suppress(termios.error):  # the terminal is gone
                    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, terminal)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def announce(self) -> None:
        if self.keys:
            print("space, Enter or e: e-stop; q: lie down and end", flush=True)
            if self._source.help:
                print(f"{self._source.name}: {self._source.help}", flush=True)

    def _signal(self, number: int, frame: Any) -> None:
        self._stop(f"e-stop by {signal.Signals(number).name}")

    def poll(self) -> None:
        """Obey all keys that were pressed."""
        while self.keys and select.select([sys.stdin], [], [], 0)[0]:
            try:
                key = os.read(sys.stdin.fileno(), 1)
            except OSError:
                key = b""
            if not key:
                self.keys = False
                self._stop("e-stop: the terminal is gone")
            elif key in (STOP_TYPING if self._source.typing else STOP):
                self._stop("e-stop by key")
            elif key == END and not self._source.typing:
                self.end = True
            else:
                self._source.press(key)
