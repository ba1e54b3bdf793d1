"""What a deployment was like."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from motoric.hardware.interfaces.base import Metric


@dataclass(frozen=True)
class DeployReport:
    """What happened.

    seconds: under the policy
    metrics: of the policy's interface, over that time; NaN where the robot does not measure it
    named: what they are, for tables
    fault: why the supervisor stepped in, None if it didn't; ended: why the policy stopped
    loop_rate: Hz; ticks, missed: of the loop; missed: begun more than 1 ms late, or not at all
    inference: inline or thread
    lateness_ms, policy_ms, tick_ms: p50, p99, p99.9, max, and `histograms` of them (`Timing`)
    realtime: what the kernel granted
    dry_run: nothing was sent; asked_torque, asked_move: the most a motor would have been asked
    for, as a share of its limit, and the farthest a joint from where it was, rad
    """

    seconds: float
    metrics: dict[str, float]
    named: tuple[Metric, ...]
    fault: str | None
    ended: str
    loop_rate: float
    ticks: int
    missed: int
    inference: str
    lateness_ms: dict[str, float]
    policy_ms: dict[str, float]
    tick_ms: dict[str, float]
    histograms: dict[str, list[int]]
    realtime: str
    dry_run: bool
    asked_torque: float
    asked_move: float
    log: str | None = None
    log_error: str | None = None

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "named"}
