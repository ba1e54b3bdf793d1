"""The table that `motoric deploy` prints: what the interface names, and what wasn't measured."""

from __future__ import annotations

import math

from motoric.hardware.interfaces.metrics import METRICS
from motoric.hardware.runtime.report import DeployReport
from motoric.scripts.deploy import rows

TIMES = dict.fromkeys(("p50", "p99", "p99.9", "max"), 0.0)


def report(**metrics: float) -> DeployReport:
    return DeployReport(
        seconds=0.5, metrics=metrics, named=tuple(METRICS[name][0] for name in metrics),
        fault=None, ended="finished", loop_rate=500.0, ticks=250, missed=0, inference="inline",
        lateness_ms=TIMES, policy_ms=TIMES, tick_ms=TIMES, histograms={}, realtime="",
        dry_run=False, asked_torque=0.0, asked_move=0.0,
    )  # fmt: skip


def test_metrics_are_printed_as_they_are_named():
    table = rows(report(velocity_error=0.1234, distance=math.nan, fell=1.0))
    assert table["policy acted"] == "0.5 s"
    assert table["velocity error"].startswith("0.123")
    assert table["velocity error"].endswith("m/s")
    assert table["distance"] == "not measured"
    assert "fell" in table


def test_a_policy_without_metrics_has_none_in_the_table():
    assert set(rows(report())) == {
        "policy acted", "control loop", "lateness", "inference", "policy tick",
    }  # fmt: skip
