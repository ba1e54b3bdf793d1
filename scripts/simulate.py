"""Serve a simulated robot on the wire of the real one: `motoric simulate robot=go2`."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from motoric.configs.commands import Simulate
from motoric.hardware.drivers import STAND_INS
from motoric.hardware.robot import RobotError
from motoric.hardware.runtime.log import LogError
from motoric.hardware.simulated.stand_in import StandIn
from motoric.scripts import config
from motoric.scripts.config import UserError

ENDS = (signal.SIGINT, signal.SIGTERM)
WIRE = ("interface", "port", "lose", "corrupt", "hand", "record")  # what may be said of the wire


def simulate(settings: Simulate, say: Callable[[str], None] = print) -> None:
    """Serve until Ctrl-C or SIGTERM, or until the window is closed."""
    viewer = settings.viewer
    if viewer.name == "video":
        raise UserError("viewer: 'video' films evaluations and logs, expected web, native or none")
    robot = _make(settings)
    name, stop, ended = settings.robot.name, threading.Event(), threading.Event()
    failed: list[Exception] = []

    def serve() -> None:
        try:
            robot.run(stop)
        except Exception as error:
            failed.append(error)
        finally:
            ended.set()

    try:
        if viewer.name != "none" and robot.model is None:
            raise UserError(f"viewer: {viewer.name!r}, {name} has no model to show, expected none")
        reach = " ".join(_reach(settings, robot))
        previous = {n: signal.signal(n, signal.default_int_handler) for n in ENDS}
        try:
            threading.Thread(target=serve, daemon=True).start()
            say(f"simulated {name} {robot.where} (Ctrl-C ends)")
            say(f"motoric deploy run=runs/DIR robot={name} {reach}")
            _look(robot, viewer, ended)
        except KeyboardInterrupt:
            pass
        finally:
            for number in ENDS:
                signal.signal(number, signal.SIG_IGN)  # it is ending
            stop.set()
            ended.wait(5.0)  # not join: interrupted once, it takes a thread for ended
            for number, handler in previous.items():
                signal.signal(number, handler)
    finally:
        robot.close()
    if failed:
        raise failed[0]
    say(f"simulated {name}: ended")


def _make(settings: Simulate) -> StandIn:
    name, driver = settings.robot.name, settings.robot.driver
    if driver not in STAND_INS:
        raise UserError(
            f"robot: {name!r} has no simulated counterpart on a wire of its own, expected one of "
            f"{', '.join(_simulated())}"
        )
    usual = config.load("simulate", [f"robot={name}"]).robot.options
    if settings.robot.model is not None and "model" not in usual:
        raise UserError(
            f"robot.model: {settings.robot.model}, a simulated {name} has its own; "
            "check and deploy take another with robot=sim_go2"
        )
    defaults = {item: Simulate.__dataclass_fields__[item].default for item in WIRE}
    given = {k: getattr(settings, k) for k in WIRE if getattr(settings, k) != defaults[k]}
    try:
        make = STAND_INS[driver]
        takes = [key for key in WIRE if key in inspect.signature(make).parameters]
        for key, value in given.items():
            if key not in takes:
                raise UserError(f"{key}: {value}, a simulated {name} takes {', '.join(takes)}")
        return make(settings.robot.options, **given)
    except ImportError as error:
        extra = "train,unitree" if driver != "dynamixel" else "dynamixel"
        raise UserError(f"robot: {error.name} is missing, pip install 'motoric[{extra}]'") from None
    except (RobotError, RuntimeError, LogError) as error:
        raise UserError(str(error)) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"robot: {error}") from None


def _simulated() -> list[str]:
    """Names of the configurations whose driver has a simulated counterpart."""
    names = config.group_choices("robot")
    return [n for n in names if config.load("simulate", [f"robot={n}"]).robot.driver in STAND_INS]


def _reach(settings: Simulate, robot: StandIn) -> list[str]:
    """Arguments that lead `deploy` to it, with every option that was changed."""
    usual = config.load("simulate", [f"robot={settings.robot.name}"]).robot.options
    said = {argument.partition("=")[0] for argument in robot.reach}
    changed = [
        f"robot.options.{key}={value}"
        for key, value in settings.robot.options.items()
        if value != usual.get(key) and not isinstance(value, dict)
    ]
    return [*robot.reach, *(c for c in changed if c.partition("=")[0] not in said)]


def _look(robot: StandIn, viewer: Any, ended: threading.Event) -> None:
    """Until it ends, or the window is closed. Raises KeyboardInterrupt when told to stop."""
    if viewer.name == "web":
        from motoric.scripts.viewers import web as view_web

        view_web.serve_live(robot.model, robot.pose, viewer.host, viewer.port, "simulated robot")
    elif viewer.name == "native":
        from motoric.scripts.viewers import native as view_native

        view_native.show_live(robot.model, robot.pose)
    else:
        ended.wait()


def run(settings: Simulate, say: Callable[[str], None]) -> int:
    """`motoric simulate`."""
    simulate(settings, say)
    return 0


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["simulate", *sys.argv[1:]]))
