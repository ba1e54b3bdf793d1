"""How long a policy's tick takes, and how punctual the loop is, beside the bare network.

    python benchmarks/latency.py run RUN     # 6 minutes; on an idle machine
    python benchmarks/latency.py report      # the tables in docs/latency.md

Calls: the same network by onnxruntime alone, by torch (eager), as a bundle, and as the policy's
whole tick (observation, network, joint targets, supervisor), after 20 ms of sleep (cold) or right
after some others of its kind (warm), taken in turns. Loop: whole deployments on the simulated Go2
in its own process, in turns, and the loop with nothing to do, which shows what the machine allows.

What was measured before is replaced only by a measurement that is whole.
"""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch
from motoric.control.loop import RateLoop, percentiles
from motoric.control.realtime import scheduling
from motoric.hardware.goals import checked
from motoric.hardware.robot import RobotState
from motoric.hardware.runtime.bundle import Bundle, find_bundle, interface_of
from motoric.hardware.runtime.deploy import Control, deploy
from motoric.hardware.runtime.policy import Policy
from motoric.hardware.runtime.rehearsal import Rehearsal
from motoric.hardware.simulated.robot import SimRobot
from motoric.hardware.specs.go2 import GO2
from page import write_table

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "latency"
GOAL, SECONDS, ROUNDS, CALLS = [0.5, 0.0, 0.0], 10.0, 3, 300
WARMING = 10  # calls before a warm one
QUANTILES = ("p50", "p99", "max")
# name: loop rate, Hz; realtime; whether the policy's tick is rehearsed
LOOPS = {
    "500 Hz": (500.0, "auto", True),
    "500 Hz, not rehearsed": (500.0, "auto", False),
    "500 Hz, realtime=off": (500.0, "off", True),
    "50 Hz": (50.0, "auto", True),
}
ALONE = "500 Hz, nothing to do"


def calls(bundle: Bundle, onnx_bytes: bytes) -> dict[str, Callable[[], object]]:
    """What is timed, without arguments."""
    (seen,) = bundle.spec.observations
    observation = np.random.default_rng(0).normal(size=(1, *seen.shape)).astype(np.float32)
    names, feed = [bundle.spec.action.name], {seen.name: observation}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_bytes, options)
    layers: list[torch.nn.Module] = []
    model = onnx.load_from_string(onnx_bytes)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            layers += [torch.nn.Linear(tensor.dims[1], tensor.dims[0]), torch.nn.ELU()]
    network = torch.nn.Sequential(*layers[:-1])
    torch.set_num_threads(1)
    zero = np.zeros(12)
    upright = np.array([1.0, 0.0, 0.0, 0.0])
    state = RobotState(0.0, 0, GO2.stand, zero, zero, upright, np.zeros(3))
    interface, policy = interface_of(bundle.spec, GO2), Policy(bundle)
    tick = Rehearsal(bundle, interface, checked(interface.goals, GOAL))

    def eager() -> object:
        with torch.no_grad():
            return network(torch.from_numpy(observation)).numpy()

    return {
        "onnxruntime alone": lambda: session.run(names, feed),
        "torch, eager": eager,
        "bundle": lambda: policy.infer(feed),
        "policy tick": lambda: tick.play(state),
    }


def time_calls(timed: dict[str, Callable[[], object]]) -> list[list[object]]:
    """Rows: what, warm or cold, then QUANTILES, us."""
    seconds: dict[tuple[str, str], list[float]] = {
        (name, how): [] for name in timed for how in ("cold", "warm")
    }
    for _ in range(CALLS):
        for (name, how), taken in seconds.items():
            call = timed[name]
            if how == "cold":
                time.sleep(0.02)
            else:
                for _ in range(WARMING):
                    call()
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    rows = []
    for key, taken in seconds.items():
        found = percentiles(np.array(taken))
        rows.append([*key, *(f"{1e3 * found[q]:.1f}" for q in QUANTILES)])
    return rows


def stolen() -> float:
    """Seconds that the machine's host has taken from all of its processors."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def time_alone() -> list[object]:
    """The loop without a robot and a policy: the first columns of the loop's table."""
    loop, before = RateLoop(500.0, int(500 * SECONDS)), stolen()

    def work() -> None:
        granted.enter()
        for _ in loop:
            pass

    with scheduling("auto") as granted:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    late = percentiles(loop.lateness)
    return [
        ALONE, len(loop.lateness), loop.missed(), f"{late['p99.9']:.3f}", f"{late['max']:.3f}",
        f"{stolen() - before:.2f}",
    ]  # fmt: skip


def time_loop(bundle: Bundle, name: str) -> list[object]:
    """One deployment: a row of the loop's table."""
    rate, realtime, rehearsed = LOOPS[name]
    robot, before = SimRobot(), stolen()
    acts_at = Control.acts_at if rehearsed else lambda *_: False
    try:
        with mock.patch.object(Control, "acts_at", acts_at):
            report = deploy(
                bundle, robot, SECONDS, GOAL, FOLDER / "log.mcap", keys=False, loop_rate=rate,
                realtime=realtime,
            )  # fmt: skip
    finally:
        robot.close()
        (FOLDER / "log.mcap").unlink(missing_ok=True)
    late = report.lateness_ms
    return [
        name, report.ticks, report.missed, f"{late['p99.9']:.3f}", f"{late['max']:.3f}",
        f"{stolen() - before:.2f}", *(f"{1e3 * report.policy_ms[q]:.0f}" for q in QUANTILES),
        *(f"{1e3 * report.tick_ms[q]:.0f}" for q in QUANTILES),
        f"{report.metrics['velocity_error']:.3f}", int(report.metrics["fell"]), report.fault or "",
    ]  # fmt: skip


@contextlib.contextmanager
def new_csv(name: str) -> Iterator[Any]:
    """A CSV that takes the place of the old one when all of it is written."""
    path = FOLDER / f"{name}.csv"
    new = path.with_suffix(".csv.new")
    try:
        with new.open("w", newline="") as file:
            yield csv.writer(file)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def run(folder: str) -> None:
    path = find_bundle(folder, "best")[1]
    bundle, timed = Bundle.load(path), calls(Bundle.load(path), (path / "policy.onnx").read_bytes())
    FOLDER.mkdir(parents=True, exist_ok=True)
    with new_csv("calls") as writer:
        writer.writerow(["call", "caches", *(f"{q}_us" for q in QUANTILES)])
        for _ in range(ROUNDS):
            writer.writerows(time_calls(timed))
    with new_csv("loop") as writer:
        writer.writerow([
            "loop", "ticks", "late", "lateness_p99.9_ms", "lateness_max_ms",
            "stolen_s", *(f"{what}_{q}_us" for what in ("policy", "tick") for q in QUANTILES),
            "velocity_error", "fell", "fault",
        ])  # fmt: skip
        for _ in range(ROUNDS):
            for row in (time_alone(), *(time_loop(bundle, name) for name in LOOPS)):
                writer.writerow(row)
                print(*row, flush=True)
    report()


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def _median(rows: list[dict[str, str]], field: str, digits: int = 0) -> str:
    """Median over the rounds, and the range."""
    values = np.array([float(row[field]) for row in rows])
    middle, low, high = np.nanmedian(values), np.nanmin(values), np.nanmax(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def report() -> None:
    """Write the tables into the page."""
    found = _rows("calls")
    first = [
        "| call | warm, median | warm, p99 | cold, median | cold, p99 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row["call"] for row in found):
        cells = []
        for how in ("warm", "cold"):
            chosen = [row for row in found if (row["call"], row["caches"]) == (name, how)]
            cells += [_median(chosen, f"{q}_us") for q in ("p50", "p99")]
        first.append(f"| {name} | {' | '.join(cells)} |")
    found = _rows("loop")
    second = [
        "| loop | ticks > 1 ms late | lateness p99.9, ms | stolen, s "
        "| policy, median | policy, p99 "
        "| policy tick, median | policy tick, p99 | velocity error, m/s | fell | faults |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in (ALONE, *LOOPS):
        chosen = [row for row in found if row["loop"] == name]
        late, ticks = (sum(int(row[key]) for row in chosen) for key in ("late", "ticks"))
        punctual = (
            f"| {name} | {late} of {ticks} ({late / ticks:.2%}) "
            f"| {_median(chosen, 'lateness_p99.9_ms', 2)} | {_median(chosen, 'stolen_s', 2)} "
        )
        if name == ALONE:
            second.append(punctual + "| – " * 7 + "|")
            continue
        fell, faults = (
            sum(row[key] not in ("", "0") for row in chosen) for key in ("fell", "fault")
        )
        second.append(
            f"{punctual}| {_median(chosen, 'policy_p50_us')} | {_median(chosen, 'policy_p99_us')} "
            f"| {_median(chosen, 'tick_p50_us')} | {_median(chosen, 'tick_p99_us')} "
            f"| {_median(chosen, 'velocity_error', 3)} | {fell} of {len(chosen)} | {faults} |"
        )
    write_table("latency.md", "calls", first)
    write_table("latency.md", "loop", second)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"] and len(sys.argv) == 3:
        run(sys.argv[2])
    elif sys.argv[1:] == ["report"]:
        report()
    else:
        sys.exit(__doc__)
