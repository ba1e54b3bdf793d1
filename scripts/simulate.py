"""Serve a simulated robot on the wire of the real one: `motoric simulate robot=go2`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module

from motoric.configs import schema
from motoric.hardware.drivers import ROBOTS, SIMULATED
from motoric.hardware.log import LogError
from motoric.scripts.config import UserError


def simulate(settings: schema.Simulate, say: Callable[[str], None] = print) -> None:
    """Serve until Ctrl-C, or until the window is closed."""
    name, options = settings.robot.driver, settings.robot.options
    if name not in SIMULATED:
        raise UserError(
            f"robot: {name!r} has no simulated counterpart, expected one of {', '.join(SIMULATED)}"
        )
    viewer = settings.viewer
    if viewer.name == "video":
        raise UserError("viewer: 'video' films evaluations and logs, expected web, native or none")
    try:
        module = import_module(SIMULATED[name][0])
        robot = getattr(module, SIMULATED[name][1])(
            ROBOTS[name], settings.interface, int(options["domain"]), record=settings.record
        )
    except ImportError as error:
        raise UserError(
            f"robot: {error.name} is missing, pip install 'motoric[train,unitree]'"
        ) from None
    except (RuntimeError, LogError) as error:
        raise UserError(str(error)) from None
    say(
        f"simulated {name} on {settings.interface}, DDS domain {options['domain']}: lying, its "
        "motion service active (Ctrl-C ends)"
    )
    stop = threading.Event()
    model, data = robot.simulation.model, robot.simulation.data
    if viewer.name == "none":
        try:
            module.run(robot, stop)
        except KeyboardInterrupt:
            say("")
        return
    thread = threading.Thread(target=module.run, args=(robot, stop), daemon=True)
    thread.start()
    try:
        if viewer.name == "web":
            from motoric.scripts import view_web

            view_web.serve_live(
                model, data.qpos.copy, viewer.host, viewer.port, f"simulated {name}"
            )
        else:
            from motoric.scripts import view_native

            view_native.show_live(model, data.qpos.copy)
    finally:
        stop.set()
        thread.join(1.0)


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["simulate", *sys.argv[1:]]))
