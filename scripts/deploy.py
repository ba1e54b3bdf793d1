"""Run a run's bundle on a robot: `motoric deploy …`, or `python scripts/deploy.py …`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

from motoric.configs import schema
from motoric.hardware.bundle import Bundle, find_bundle
from motoric.hardware.deploy import DeployReport, deploy
from motoric.hardware.drivers import make_robot
from motoric.hardware.robot import RobotError
from motoric.scripts.config import UserError


def deploy_run(
    settings: schema.Deploy, say: Callable[[str], None] = print, keys: bool = True
) -> DeployReport:
    """Deploy, log to RUN/logs, and print what happened."""
    folder, path = find_bundle(settings.run, settings.bundle)
    bundle = Bundle.load(path)
    if bundle.spec.robot is None:
        raise UserError(f"run: {bundle.spec.task} has no robot to deploy on")
    try:
        robot = make_robot(settings.robot.driver, **settings.robot.options)
    except (ValueError, TypeError) as error:
        raise UserError(f"robot: {error}") from None
    log = folder / "logs" / f"{settings.robot.name}_{time.strftime('%Y%m%d-%H%M%S')}.mcap"
    log.parent.mkdir(exist_ok=True)
    try:
        report = deploy(
            Bundle.load(path, robot.spec), robot, settings.duration, settings.command, log, keys
        )
    except (ValueError, RobotError) as error:
        raise UserError(str(error).split("\n")[0]) from None
    finally:
        robot.close()
    for name, value in rows(report).items():
        say(f"  {name:<15} {value}")
    say(f"log: {log} (motoric replay {log})")
    return report


def rows(report: DeployReport) -> dict[str, str]:
    """A report as a short table."""
    late, policy = report.lateness_ms, report.policy_ms
    result = {
        "walked": f"{report.seconds:.1f} s, {_measured(report.distance, '.2f', 'm')}",
        "velocity error": _measured(report.velocity_error_mean, ".3f", "m/s"),
        "fell": "yes" if report.fell else "no",
        "loop lateness": f"{late['p50']:.2f} ms median, {late['p99']:.2f} ms p99, "
        f"{late['max']:.2f} ms worst; {report.missed} of {report.ticks} over 1 ms",
        "policy time": f"{policy['p50']:.2f} ms median, {policy['p99']:.2f} ms p99",
    }
    if report.fault is not None:
        result["fault"] = report.fault
    if report.log_error is not None:
        result["log incomplete"] = report.log_error
    return result


def _measured(value: float, form: str, unit: str) -> str:
    return f"{value:{form}} {unit}" if math.isfinite(value) else "not measured"


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["deploy", *sys.argv[1:]]))
