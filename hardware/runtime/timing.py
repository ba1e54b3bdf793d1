"""How often a control loop runs for a policy, and what it took."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.control.limits import Array
from motoric.control.loop import histogram, percentiles


@dataclass(frozen=True)
class Timing:
    """What a deployment took, s.

    lateness: of every tick of the loop; policy: of every inference; tick: from a measurement to
    the command it led to, with an inference where it is in the loop, without the robot's input
    and output
    """

    lateness: Array
    policy: Array
    tick: Array

    def percentiles(self) -> dict[str, dict[str, float]]:
        return {name: percentiles(seconds) for name, seconds in vars(self).items()}

    def histograms(self) -> dict[str, list[int]]:
        return {name: histogram(seconds) for name, seconds in vars(self).items()}


def ticks_per_action(
    rate: float, wished: float | None, robot: float | None, most: float | None = None
) -> int:
    """How often the loop runs for each action of a policy of `rate` Hz.

    wished: loop rate asked for, a multiple of the policy's; None: as `robot` wants it, to the
    nearest multiple. most: what the robot's link can take. Raises ValueError for what can't be.
    """
    if most is not None and rate > most * (1 + 1e-6):
        raise ValueError(
            f"bundle: the policy acts at {rate:g} Hz, the robot's link takes at most {most:.0f} Hz"
        )
    if wished is None:
        ratio = max(1, round((robot or rate) / rate))
        return ratio if most is None else min(ratio, int(most * (1 + 1e-6) / rate))
    ratio = round(wished / rate)
    if ratio < 1 or abs(wished / rate - ratio) > 1e-6:
        raise ValueError(
            f"loop_rate: {wished:g} Hz, expected a multiple of the policy's rate, {rate:g} Hz"
        )
    if most is not None and wished > most * (1 + 1e-6):
        raise ValueError(f"loop_rate: {wished:g} Hz, the robot's link takes at most {most:.0f} Hz")
    return ratio
