"""Run a policy bundle on a robot: the fixed-rate loop from measurement to safe command.

Two threads share a deployment. The loop's thread does everything in turn: read, policy, supervisor,
write. The guard's thread wakes half a period later and does the same without the policy wherever
the first one is still waiting for it: no policy, however slow, ever delays the supervisor. Where
the supervisor itself hangs, in a filter, the guard damps. A policy that takes long thinks in a
third thread (`inference.py`).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from motoric.control.command import MotorCommand
from motoric.control.loop import EDGES, RateLoop
from motoric.control.realtime import Realtime, scheduling
from motoric.control.supervisor import Mode, Supervisor, Thresholds
from motoric.hardware.fields import plain
from motoric.hardware.goals import text_of
from motoric.hardware.robot import Robot, RobotError, RobotState
from motoric.hardware.runtime.agent import Agent
from motoric.hardware.runtime.bundle import Bundle, check_robot, interface_of
from motoric.hardware.runtime.inference import Inference, Inline, Threaded, choose, seconds_of
from motoric.hardware.runtime.log import LogWriter
from motoric.hardware.runtime.operator import Operator
from motoric.hardware.runtime.policy import Policy
from motoric.hardware.runtime.read_only import ReadOnly
from motoric.hardware.runtime.rehearsal import Rehearsal
from motoric.hardware.runtime.report import DeployReport
from motoric.hardware.runtime.timing import Timing, ticks_per_action
from motoric.hardware.sources import Fixed, Source

# Lying down in mid-stride tips a robot over: the policy is brought to a halt first.
SLOW, STAND = 0.5, 0.5  # s in which its goal goes to rest, and for which it then stands
HUNG = 0.05  # s in the supervisor after which the guard damps without it


class Control:
    """A deployment while it runs: `tick` by the loop's thread, `stand_in` by the guard's."""

    def __init__(
        self,
        robot: Robot,
        supervisor: Supervisor,
        agent: Agent,
        inference: Inference,
        rehearsal: Rehearsal,
        source: Source,
        duration: float,
        ticks_per_action: int,
        log: LogWriter | None,
    ) -> None:
        self._robot, self._agent, self._inference, self._log = robot, agent, inference, log
        self._rehearsal, self.source = rehearsal, source
        self._newest: RobotState | None = None
        self.supervisor, self.operator_ends = supervisor, False
        self._duration, self._ticks_per_action = duration, ticks_per_action
        self.patience = 0.25 * agent.period / ticks_per_action
        self._turn = threading.Lock()  # whose holder reads, supervises and writes
        self._asked: float | None = None  # when the policy was asked, while the loop waits for it
        self._blind = False  # it hung: from then on the guard alone writes
        self._thought: dict[str, Any] | None = None  # what the policy did, for the log
        self._wish: MotorCommand | None = None  # one not yet given to the supervisor
        self._first: int | None = None  # number of the loop's deadline at which the policy began
        self._period = -1  # of the policy, the newest it has seen
        self._goal, self._goal_logged = source.goal, None
        self._sent = 0
        self._active_since: float | None = None
        self._active_until = 0.0
        self._halt: tuple[float, str] | None = None  # since when the policy halts, and why
        self._faulted_at: float | None = None
        self.over = False
        self._status = ("", "")  # mode and reason of the last command
        self.ended = ""
        self.metrics = {m.name: array("d") for m in agent.interface.metrics}
        self.tick_seconds = array("d")
        self.asked_torque = self.asked_move = 0.0

    @property
    def seconds(self) -> float:
        """Under the policy."""
        if self._active_since is None:
            return 0.0
        acted = self._active_until - self._active_since
        return acted + self._agent.period / self._ticks_per_action

    @property
    def elapsed(self) -> float:
        """Since the policy began, s; 0 before."""
        return 0.0 if self._active_since is None else time.monotonic() - self._active_since

    # -- the loop's thread ----------------------------------------------------------------------

    def tick(self, deadline: int, late: float) -> None:
        """The loop's tick for its deadline of that number, begun `late` s after it."""
        with self._turn:
            if self.over:
                return
            now, state = self._read()
            read = time.perf_counter()
            if state is None or not self._acts(now):
                self._send(now, state, late)
                return
            period, observation = self._observe(deadline, now, state)
            if observation is None or not self._inference.blocks:
                if observation is not None:
                    self._inference.think(observation, period, now)
                self._decide(period, now, state)
                self._send(now, state, late, read if self._wish is not None else None)
                return
            self._thought = {"observation": observation, "action": None, "seconds": None}
            self._asked, sent = now, self._sent
        # The policy thinks; from here on the guard may take our turn.
        self._inference.think(observation, period, now)
        with self._turn:
            self._asked = None
            self._decide(period, now, state)
            if self._sent == sent and not self.over:
                self._send(now, state, late, read)

    def acts_at(self, deadline: int) -> bool:
        """Whether the policy is to act at the loop's deadline of that number."""
        return self.supervisor.mode is Mode.ACTIVE and self._period_of(deadline) > self._period

    def rehearse(self) -> None:
        """Play the policy's tick through, without effect; the guard watches this one too."""
        state, inference = self._newest, self._inference
        if state is not None:
            self._asked = time.monotonic()
            with contextlib.suppress(Exception):  # where it acts, it is told
                thinks = inference.blocks and inference.wants(self._period + 1)
                self._rehearsal.play(state, thinks)
            self._asked = None

    def _period_of(self, deadline: int) -> int:
        first = deadline if self._first is None else self._first
        return (deadline - first) // self._ticks_per_action

    def _observe(
        self, deadline: int, now: float, state: RobotState
    ) -> tuple[int, dict[str, Any] | None]:
        """The policy's period, and what it sees if it begins to think at this tick."""
        if self._first is None:
            self._first = deadline
        period = self._period_of(deadline)
        if period <= self._period:
            return period, None
        self._period = period
        if not self._inference.wants(period):
            return period, None
        try:
            return period, self._agent.observe(self._agent.measured(state, now))
        except Exception as error:
            self.supervisor.fault(f"observation: {_line(error)}")
            return period, None

    def _decide(self, period: int, now: float, state: RobotState) -> None:
        """The wish of this period, where there is an action for it."""
        if self._inference.problem is not None:
            self.supervisor.fault(self._inference.problem)
            return
        chosen = self._inference.action(period)
        if chosen is None:
            return
        try:
            self._wish = self._agent.command(chosen.action, self._agent.measured(state, now))
        except Exception as error:
            self.supervisor.fault(f"action: {_line(error)}")
            return
        thought = chosen.thought
        self._thought = {
            "observation": thought.observation if chosen.first else None,
            "action": chosen.action,
            "seconds": thought.seconds,
            "periods_old": chosen.age,
        }

    # -- the guard's thread ---------------------------------------------------------------------

    def stand_in(self, late: float) -> None:
        """A tick in place of the loop's, where the policy or the supervisor has not answered."""
        now, asked, busy = time.monotonic(), self._asked, self._busy_since()
        if self._blind or (busy is not None and now - busy > HUNG):
            self._damp_blindly(now, late)
        elif busy is None and asked is not None and now - asked >= self.patience:
            with self._turn:
                if self._asked is not None and not self.over:
                    now, state = self._read()
                    self._acts(now)
                    self._send(now, state, late)

    def _busy_since(self) -> float | None:
        """Since when the loop is in a supervisor, the rehearsal's or the real one."""
        return self._rehearsal.supervisor.busy_since or self.supervisor.busy_since

    def _damp_blindly(self, now: float, late: float) -> None:
        """A filter does not come back, and so the loop doesn't: damp without either."""
        if not self._blind:
            self._blind = True
            if self._busy_since() is None:  # it came back just now
                self._blind = False
                return
        where = self.supervisor.busy_with or self._rehearsal.supervisor.busy_with
        self.supervisor.fault(f"{where or 'supervisor'}: no answer for {HUNG:g} s")
        sent = self._numbered(self.supervisor.blind())
        with contextlib.suppress(Exception):  # nobody is left to tell
            self._robot.write(sent)
        self._sent += 1
        self._log_tick(now, None, sent, None, late)
        self._end(now)

    # -- what both do in their turn -------------------------------------------------------------

    def _read(self) -> tuple[float, RobotState | None]:
        """The time and the newest state; rises at the first."""
        now, state = time.monotonic(), None
        try:
            state = self._newest = self._robot.read()
        except RobotError as error:
            self.supervisor.fault(f"connection lost: {error}")
        except Exception as error:
            self.supervisor.fault(f"robot: {_line(error)}")
        if self._sent == 0 and state is not None and self.supervisor.mode is Mode.OFF:
            with contextlib.suppress(RuntimeError):  # an e-stop came in between
                self.supervisor.start(now, state)
        if self.operator_ends and self.supervisor.mode is Mode.SOFT_START:
            self.supervisor.stop("ended by key")
        return now, state

    def _acts(self, now: float) -> bool:
        """Whether the policy commands the robot at this tick."""
        if self.supervisor.mode is not Mode.ACTIVE:
            return False
        if self._active_since is None:
            self._active_since = self._active_until = now
        over = now - self._active_since >= self._duration
        if self._halt is None and (over or self.operator_ends):
            self._halt = now, "ended by key" if self.operator_ends else "finished"
        if self._halt is None:
            self._active_until = now
            if self.source.goal is not self._goal:
                self._goal = self.source.goal
                self._agent.ask(self._goal)
            return True
        began, reason = self._halt
        if not self._agent.moves or now - began >= SLOW + STAND:
            self.supervisor.stop(reason)
            return False
        self._agent.halt((now - began) / SLOW)
        return True

    def _send(
        self, now: float, state: RobotState | None, late: float, read: float | None = None
    ) -> None:
        """Supervise, write, log, and see whether it is over.

        now: when `state` was read; read: the same by the performance counter, where the policy
        acted on it.
        """
        supervisor = self.supervisor
        wish, self._wish = self._wish, None
        thought, self._thought = self._thought, None
        decided = time.monotonic()
        sent = self._numbered(supervisor.update(decided, state, wish))
        if self._blind:  # the guard has taken over
            return
        if read is not None:
            self.tick_seconds.append(time.perf_counter() - read)
        if sent.time - decided > supervisor.thresholds.stale:  # stopped since it was decided
            supervisor.fault(f"control loop paused for {sent.time - decided:.3f} s")
            sent = self._numbered(supervisor.update(time.monotonic(), state, None))
        try:
            self._robot.write(sent)
        except Exception as error:
            known = isinstance(error, RobotError)
            supervisor.fault(f"connection lost: {error}" if known else f"robot: {_line(error)}")
            # The log ends damped.
            sent = self._numbered(supervisor.update(time.monotonic(), state, None))
        self._sent += 1
        self._log_tick(now, state, sent, wish, late, thought)
        if thought is not None and state is not None and self._halt is None:
            self._account(now, state, sent)
        self._end(now)

    def _numbered(self, sent: MotorCommand) -> MotorCommand:
        return MotorCommand(
            sent.position, sent.velocity, sent.kp, sent.kd, sent.torque, time.monotonic(),
            self._sent,
        )  # fmt: skip

    def _end(self, now: float) -> None:
        """See whether it is over."""
        supervisor = self.supervisor
        self.ended = supervisor.reason or self.ended
        if supervisor.mode is Mode.FAULT and self._faulted_at is None:
            self._faulted_at = now
        damp = supervisor.thresholds.damp
        self.over |= supervisor.mode is Mode.OFF
        self.over |= self._faulted_at is not None and now - self._faulted_at >= damp

    # -- accounts -------------------------------------------------------------------------------

    def _log_tick(
        self,
        now: float,
        state: RobotState | None,
        sent: MotorCommand,
        wish: MotorCommand | None,
        late: float,
        thought: dict[str, Any] | None = None,
    ) -> None:
        supervisor = self.supervisor
        if not (supervisor.mode is Mode.FAULT and sent.kp.any()):  # else it came while writing
            self._status = (supervisor.mode, supervisor.reason)
        if self._log is None:
            return
        goal = None
        if thought is not None and self._agent.goal is not self._goal_logged:
            self._goal_logged = self._agent.goal
            texts = {p.name for p in self._agent.interface.goals if p.is_text}
            values = {
                name: text_of(value[0]) if name in texts else value[0]
                for name, value in self._goal_logged.items()
            }
            goal = {"source": self.source.name, "values": values}
        status = {"mode": self._status[0], "reason": self._status[1], "late": late}
        self._log.tick(now, self._sent - 1, state, sent, thought, status, wish=wish, goal=goal)

    def _account(self, now: float, state: RobotState, sent: MotorCommand) -> None:
        """What the report says of a tick in which the policy acted."""
        for name, value in self._agent.measure(self._agent.measured(state, now)).items():
            self.metrics[name].append(value)
        offset = sent.position - state.position
        torque = sent.kp * offset + sent.kd * (sent.velocity - state.velocity) + sent.torque
        self.asked_move = max(self.asked_move, float(np.abs(offset).max()))
        share = np.abs(torque) / self._robot.spec.limits.torque
        self.asked_torque = max(self.asked_torque, float(share.max()))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def deploy(
    bundle: Bundle,
    robot: Robot,
    duration: float,
    goal: Any = None,
    log_path: Path | None = None,
    keys: bool = True,
    loop_rate: float | None = None,
    realtime: str = "auto",
    dry_run: bool = False,
    inference: str = "auto",
) -> DeployReport:
    """Rise, act for `duration` s, halt, lie down; every command passes the supervisor.

    goal: what the policy is asked for: a value (where it has one part), a mapping of parts, a
        `Source` of them, or None: to be at rest. log_path: MCAP file to write.
    loop_rate: Hz at which the robot is read, supervised and commanded, a multiple of the
        policy's; None: as the robot wants it.
    realtime: "auto", "on" or "off": whether to ask for SCHED_FIFO and locked memory.
    dry_run: do all of it, but send nothing and switch nothing on or off.
    inference: "inline" in the loop, in a "thread" of its own, or "auto": by the time it takes,
        which is measured before anything moves.
    Raises ValueError or BundleError for what does not fit, RobotError if the robot can't be
    reached at all; a fault once it moves ends in the damped state and is told in the report.
    """
    spec, model = bundle.spec, robot.spec
    check_robot(spec, model)
    interface = interface_of(spec, model)
    source = goal if isinstance(goal, Source) else Fixed(goal)
    if source.needs_keys and not keys:
        raise ValueError(f"source: {source.name} needs the keys of a terminal")
    if not 0 < duration < 1e6:
        raise ValueError(f"duration: {duration}, expected a positive number of seconds")
    ticks_per_action(interface.rate, loop_rate, robot.loop_rate, robot.most_rate)
    supervisor = Supervisor(
        model.limits, model.stand, model.rest, model.kp, model.kd, model.damping,
        1.0 / interface.rate, kp_max=model.kp_max, kd_max=model.kd_max,
        filters=interface.filters(bundle.run),
    )  # fmt: skip
    if dry_run:  # nobody moves a robot that is only read: it need not arrive at the stand
        robot, supervisor.thresholds = ReadOnly(robot), Thresholds(arrive=np.inf)
    policy = Policy(bundle)
    # The first call of a network is slow; it happens before anything moves.
    blank = {t.name: np.zeros((1, *t.shape), t.dtype) for t in spec.observations}
    kind = choose(policy, seconds_of(policy, blank), inference, supervisor.thresholds.late)
    log, thinking = None, None
    try:
        source.open(interface.goals)
        operator = Operator(keys, supervisor.fault, source)
        if source.needs_keys and not operator.keys:
            raise ValueError(f"source: {source.name} needs the keys of a terminal")
        with scheduling(realtime) as granted:
            robot.realtime = granted
            robot.configure()  # only then a robot far away has said what it wants
            ratio = ticks_per_action(interface.rate, loop_rate, robot.loop_rate, robot.most_rate)
            rate = ratio * interface.rate
            if log_path is not None:
                log = LogWriter(log_path, {
                    "robot": model.name, "task": spec.task, "rate": str(interface.rate),
                    "loop_rate": str(rate), "dry_run": str(dry_run).lower(),
                    "joints": ",".join(model.joints), "spec": json.dumps(plain(model)),
                    "interface": json.dumps(spec.interface),
                })  # fmt: skip
            thinking = (
                Inline(policy) if kind is Inline
                else Threaded(policy, lambda: granted.enter(above=-1))
            )  # fmt: skip
            control = Control(
                robot, supervisor, Agent(interface, source.goal), thinking,
                Rehearsal(bundle, interface, source.goal), source, duration, ratio, log,
            )  # fmt: skip
            loop = RateLoop(rate)
            with operator.listen():  # to the end: no second Ctrl-C keeps the motors on
                try:
                    robot.activate()
                    _run(control, loop, operator, granted)
                finally:
                    robot.deactivate()
                timing = Timing(
                    loop.lateness, np.array(thinking.seconds), np.array(control.tick_seconds)
                )
                if log is not None:
                    log.timing(
                        {"loop_rate": rate, "ticks": len(loop.lateness),
                         "missed": loop.missed(), "below_s": EDGES[:-1], "realtime": str(granted),
                         "percentiles_ms": timing.percentiles(), "histograms": timing.histograms()}
                    )  # fmt: skip
                    log.close()
    finally:
        source.close()
        if thinking is not None:
            thinking.close()
        if log is not None:
            log.close()
    shares = timing.percentiles()
    return DeployReport(
        seconds=control.seconds,
        metrics={m.name: m.total(control.metrics[m.name]) for m in interface.metrics},
        named=interface.metrics,
        fault=supervisor.reason if supervisor.mode is Mode.FAULT else None,
        ended=control.ended,
        loop_rate=rate,
        ticks=len(timing.lateness),
        missed=loop.missed(),
        inference="inline" if kind is Inline else "thread",
        lateness_ms=shares["lateness"],
        policy_ms=shares["policy"],
        tick_ms=shares["tick"],
        histograms=timing.histograms(),
        realtime=str(granted),
        dry_run=dry_run,
        asked_torque=control.asked_torque,
        asked_move=control.asked_move,
        log=None if log_path is None else str(log_path),
        log_error=None if log is None else log.error,
    )


def _run(control: Control, loop: RateLoop, operator: Operator, granted: Realtime) -> None:
    """The loop in a thread of its own; this one is its guard, and listens to the operator.

    Returns when it is over, even if the policy never answers: its thread is then left behind.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            granted.enter()
            for _ in loop:
                control.tick(loop.deadline, loop.lateness_last)
                if control.over:
                    break
                if control.acts_at(loop.deadline + 1):
                    loop.rehearse = control.rehearse
        except BaseException as error:
            control.supervisor.fault(f"control loop: {type(error).__name__}: {error}")
            failed.append(error)
            control.over = True

    def listen() -> None:
        try:
            operator.poll()
            control.source.poll(control.elapsed)
        except Exception as error:
            control.supervisor.fault(f"source {control.source.name}: {_line(error)}")
        control.operator_ends |= operator.end

    listen()  # keys pressed while the robot was being switched on
    if control.supervisor.mode is not Mode.FAULT:
        operator.announce()
    loop.start = time.monotonic()
    worker = threading.Thread(target=work, name="control loop", daemon=True)
    guard = RateLoop(1 / loop.period, start=loop.start + 0.5 * loop.period, spin=0.0)
    granted.enter(above=1)
    try:
        worker.start()
        for _ in guard:
            listen()
            control.stand_in(loop.period * 0.5 + guard.lateness_last)
            if control.over:
                break
    finally:
        control.over = True
        granted.leave()
        worker.join(0.5)
    if failed:
        raise failed[0]
