"""Run a run's bundle on a robot: `motoric deploy …`, or `python scripts/deploy.py …`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

from motoric.configs.commands import Deploy
from motoric.control.loop import EDGES
from motoric.hardware.drivers import make_robot
from motoric.hardware.interfaces.base import Metric
from motoric.hardware.robot import RobotError
from motoric.hardware.runtime.bundle import Bundle, find_bundle, read_spec
from motoric.hardware.runtime.deploy import deploy
from motoric.hardware.runtime.report import DeployReport
from motoric.hardware.sources import make_source
from motoric.scripts.config import UserError


def deploy_run(
    settings: Deploy, say: Callable[[str], None] = print, keys: bool = True
) -> DeployReport:
    """Deploy, log to RUN/logs, and print what happened."""
    folder, path = find_bundle(settings.run, settings.bundle)
    task = read_spec(path)[0]
    if task.robot is None:
        raise UserError(f"run: {task.task} has no robot to deploy on")
    try:
        robot = make_robot(settings.robot.driver, **settings.robot.options)
    except (ValueError, TypeError) as error:
        raise UserError(f"robot: {error}") from None
    log = folder / "logs" / f"{settings.robot.name}_{time.strftime('%Y%m%d-%H%M%S')}.mcap"
    try:
        log.parent.mkdir(exist_ok=True)
        source = make_source(settings.source or "fixed", settings.goal)
        report = deploy(
            Bundle.load(path, robot.spec), robot, settings.duration, source, log, keys,
            settings.loop_rate, settings.realtime, settings.dry_run, settings.inference,
        )  # fmt: skip
    except (ValueError, RobotError) as error:
        raise UserError(str(error).split("\n")[0]) from None
    finally:
        robot.close()
    for name, value in rows(report).items():
        say(f"  {name:<15} {value}")
    for line in timing_table(report):
        say(f"  {line}")
    say(f"log: {log} (motoric replay {log})" if robot.spec.model else f"log: {log}")
    return report


def rows(report: DeployReport) -> dict[str, str]:
    """A report as a short table."""
    share = report.missed / max(report.ticks, 1)
    if report.dry_run:
        result = {
            "dry run": f"{report.seconds:.1f} s under the policy, nothing was sent",
            "would ask for": f"at most {report.asked_torque:.0%} of a motor's torque, targets "
            f"at most {report.asked_move:.2f} rad from the joints",
        }
    else:
        result = {"policy acted": f"{report.seconds:.1f} s"}
        for metric in report.named:
            value = report.metrics[metric.name]
            result[metric.text or metric.name] = _measured(metric, value)
    result |= {
        "control loop": f"{report.loop_rate:g} Hz; {report.missed} of {report.ticks} ticks "
        f"({share:.2%}) more than 1 ms late; {report.realtime}",
        "lateness": _milliseconds(report.lateness_ms),
        "inference": f"{_milliseconds(report.policy_ms)}; {report.inference}",
        "policy tick": _milliseconds(report.tick_ms),
    }
    if report.fault is not None:
        result["fault"] = report.fault
    if report.log_error is not None:
        result["log incomplete"] = report.log_error
    return result


def _measured(metric: Metric, value: float) -> str:
    if not math.isfinite(value):
        return "not measured"
    if metric.over == "any":
        return "yes" if value else "no"
    return f"{value:.3f} {metric.unit}".rstrip()


def _milliseconds(found: dict[str, float]) -> str:
    return (
        f"{found['p50']:.3f} ms median, {found['p99']:.3f} p99, {found['p99.9']:.3f} p99.9, "
        f"{found['max']:.3f} worst"
    )


def timing_table(report: DeployReport) -> list[str]:
    """Histograms of lateness, policy and policy tick side by side, a line for each time."""
    columns = list(report.histograms.values())
    used = [i for i in range(len(EDGES)) if any(column[i] for column in columns)]
    if not used:
        return []
    lines = [f"{'':<15} " + "".join(f"{name:<22}" for name in report.histograms)]
    for i in range(used[0], used[-1] + 1):
        edge = f"< {EDGES[i] * 1e3:g} ms" if i + 1 < len(EDGES) else f">= {EDGES[i - 1] * 1e3:g} ms"
        cells = (f"{_bar(c[i], sum(c)):<11}{c[i]:>8}   " for c in columns)
        lines.append(f"{edge:<15} " + "".join(cells).rstrip())
    return lines


def _bar(count: int, total: int) -> str:
    """Up to ten blocks, in eighths."""
    eighths = round(80 * count / max(total, 1))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def run(settings: Deploy, say: Callable[[str], None]) -> int:
    """`motoric deploy`: 1 after a fault."""
    return 0 if deploy_run(settings, say).fault is None else 1


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["deploy", *sys.argv[1:]]))
