"""Put a robot on the network: `motoric serve …`, or `python scripts/serve.py …`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from motoric.configs.commands import Serve
from motoric.control.realtime import NotPermitted, scheduling
from motoric.hardware.drivers import make_robot
from motoric.hardware.network.server import RobotServer
from motoric.hardware.robot import STOPS, RobotError
from motoric.scripts.config import UserError


def serve(settings: Serve, say: Callable[[str], None] = print) -> int:
    """Serve until a signal of `STOPS`; returns the exit code, 1 when the robot was lost.

    A terminal that is closed ends it too, unless it was started with nohup.
    """

    def speak(line: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            say(line)

    try:
        robot = make_robot(settings.robot.driver, **settings.robot.options)
    except (ValueError, TypeError) as error:
        raise UserError(f"robot: {error}") from None
    try:
        server = RobotServer(robot, settings.host, settings.port, settings.key_file, speak)
    except (ValueError, RobotError) as error:
        raise UserError(str(error)) from None
    stops = [getattr(signal, name) for name in STOPS]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        stops.remove(signal.SIGHUP)
    ended: list[str] = []

    def end(number: int, frame: Any) -> None:
        ended.append(signal.Signals(number).name)

    previous = {n: signal.signal(n, end) for n in stops}
    try:
        with scheduling(settings.realtime) as granted:
            robot.realtime = granted
            granted.enter()
            try:
                server.run(lambda: ended[0] if ended else None)
            finally:
                granted.leave()
    except NotPermitted as error:
        raise UserError(str(error)) from None
    except RobotError as error:
        print(f"motoric serve: {error}", file=sys.stderr)
        return 1
    finally:
        server.close()
        robot.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def run(settings: Serve, say: Callable[[str], None]) -> int:
    """`motoric serve`."""
    return serve(settings, say)


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["serve", *sys.argv[1:]]))
