"""Walk a Unitree Go2 at a commanded velocity: forward, sideways and turning.

The reward is the usual sum for legged velocity tracking (Rudin et al., 2022) with a gait clock
that asks for a trot (Siekmann et al., 2021): swing feet follow a height profile, stance feet
stay put. Every function is pure over arrays with a leading dimension N.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from motoric.control.rotation import from_yaw
from motoric.envs.engine import Array, Physics, Simulation, Start
from motoric.envs.mirror import mirror_of
from motoric.envs.random import spread
from motoric.envs.registry import make_engine
from motoric.envs.scene import Scene, Shortcuts
from motoric.envs.task import Episode, Step, Task
from motoric.hardware.goals import Goal, Part
from motoric.hardware.interfaces.base import Memory, Observation
from motoric.hardware.interfaces.joint_targets import JointTargets
from motoric.hardware.interfaces.terms import Term, is_moving, projected_gravity
from motoric.hardware.measured import Measured
from motoric.hardware.robot import RobotSpec
from motoric.hardware.specs.go2 import GO2
from numpy.typing import NDArray

# Phase of each foot in the trot: FL with RR, FR with RL, half a cycle apart.
FOOT_PHASE = np.array([0.0, 0.5, 0.5, 0.0])
HIP, THIGH, CALF = np.arange(0, 12, 3), np.arange(1, 12, 3), np.arange(2, 12, 3)
CONTACT = 1.0  # N; a foot that is pressed harder touches the ground


@dataclass(frozen=True)
class Rewards:
    """Weight of each reward term, per second."""

    track_velocity: float = 2.5
    track_turn: float = 1.0
    gait: float = 3.0
    pose: float = 0.5
    height: float = -20.0
    vertical: float = -1.0
    wobble: float = -0.05
    tilt: float = -4.0
    action_rate: float = -0.2
    energy: float = -0.0005
    slip: float = -0.1


@dataclass(frozen=True)
class Go2Velocity(Task):
    """The task. `randomise=False` gives nominal physics, no sensor noise and no pushes.

    timestep: of physics, s, a part of the 20 ms between actions; shortcuts: for training alone
    beyond: how much wider than the goal's bounds training draws, so that these are inside
    Episode: contact [N, F], feet that touched at the last step
    """

    randomise: bool = True
    rewards: Rewards = field(default_factory=Rewards)
    episode_seconds: float = 20.0
    timestep: float = 0.005
    shortcuts: Shortcuts = field(default_factory=Shortcuts)
    beyond: float = 1.0

    name = "go2_velocity"
    robot: RobotSpec = field(default=GO2, init=False, repr=False)
    engines = ("mujoco", "pybullet")
    draws = {"reset": 64, "physics": 6, "advance": 7, "push": 2}  # noqa: RUF012
    swing_height = 0.08  # m
    latency = 0.02  # s, until a command reaches the motors, at most
    goal_seconds = 5.0  # a new goal every so often
    push_seconds = 6.0
    # sensor noise per term, half width, in the observation's units
    noise = (0.05, 0.03, 0.01, 0.075, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not (self.timestep > 0 and abs(self.substeps * self.timestep - self.control_dt) < 1e-9):
            raise ValueError(f"timestep: {self.timestep}, expected a part of {self.control_dt} s")

    @property
    def substeps(self) -> int:  # type: ignore[override]
        return round(self.control_dt / self.timestep)

    @cached_property
    def mirror(self) -> dict[str, Any]:  # type: ignore[override]
        return mirror_of(self.interface)

    @cached_property
    def interface(self) -> JointTargets:
        return JointTargets(
            self.robot,
            rate=50.0,
            terms=(
                Term("angular_velocity", 3, 0.25),
                Term("projected_gravity", 3),
                Term("joint_position", 12),
                Term("joint_velocity", 12, 0.05),
                Term("action", 12),
                Term("goal.velocity", 3),
                Term("gait_clock", 2),
            ),
            action_scale=(0.6, 1.0, 1.0) * 4,
            goals=(
                Part(
                    "velocity", ("forward", "left", "turn"), ("m/s", "m/s", "rad/s"),
                    low=(-0.6, -0.4, -0.8), high=(1.0, 0.4, 0.8), halts=True,
                ),
            ),
            gait_frequency=2.0,
            measures=(
                "velocity_error", "speed", "forward", "left", "turn", "distance", "power", "fell",
            ),
        )  # fmt: skip

    def simulation(self, engine: str, rows: int, threads: int) -> Simulation:
        scene = Scene.of(self.robot, timestep=self.timestep, shortcuts=self.shortcuts)
        return make_engine(engine, scene, rows, threads)

    def reset(self, draw: Array) -> tuple[Start, Goal, Memory, Episode]:
        """Standing robots with scattered joints and headings."""
        m = len(draw)
        u = 2 * draw - 1
        position = np.zeros((m, 3))
        position[:, 2] = self.robot.base_height + 0.01
        joints = self.robot.stand + 0.1 * u[:, 7:19]
        start = Start(
            base_position=position,
            orientation=from_yaw(np.pi * u[:, 0]),
            base_velocity=u[:, 1:7] * np.array([0.3, 0.3, 0.1, 0.2, 0.2, 0.2]),
            position=np.clip(joints, self.robot.limits.lower, self.robot.limits.upper),
            velocity=0.2 * u[:, 19:31],
        )
        goal = {"velocity": self.sample_velocity(draw[:, 31:38])}
        episode = {"contact": np.ones((m, len(self.robot.feet)), bool)}
        return start, goal, {"phase": draw[:, 38].copy()}, episode

    def physics(self, draw: Array) -> Physics:
        """Nominal unless randomising."""
        if not self.randomise:
            return Physics.nominal(len(draw))
        return Physics(
            friction=spread(0.4, 1.2, draw[:, 0]),
            payload=spread(-1.0, 2.0, draw[:, 1]),
            strength=spread(0.85, 1.15, draw[:, 2]),
            latency=self.latency_steps(draw[:, 3]),
            armature=spread(0.5, 1.5, draw[:, 4]),
            drag=spread(0.0, 2.0, draw[:, 5]),
        )

    def latency_steps(self, draw: Array) -> NDArray[np.int64]:
        """Substeps, from 0 up to the latency, of which 15 ms are the most in steps of 5 ms."""
        count = np.floor(self.latency / 0.005 * draw)  # of 5 ms
        return np.ceil(count * 0.005 / self.timestep - 1e-9).astype(np.int64)

    def sample_velocity(self, draw: Array) -> Array:
        """Goals [M, 3] from uniform draws [M, 7]; some axes are zero, one in ten stands."""
        (part,) = self.interface.goals
        low, high = self.beyond * np.array(part.low), self.beyond * np.array(part.high)
        velocity = low + (high - low) * draw[:, :3]
        velocity *= draw[:, 3:6] < np.array([0.9, 0.65, 0.65])
        return velocity * (draw[:, 6:7] > 0.1)

    @property
    def noise_size(self) -> int:
        return len(self.noise_width) if self.randomise else 0

    @cached_property
    def noise_width(self) -> Array:
        """Half width of the noise of each number of the observation, [O]."""
        return np.repeat(self.noise, [term.size for term in self.interface.terms])

    def corrupt(self, observation: Observation, draw: Array) -> Observation:
        noise = ((2 * draw - 1) * self.noise_width).astype(np.float32)
        return {"observation": observation["observation"] + noise}

    def reward(self, step: Step) -> tuple[Array, dict[str, Array]]:
        motion, velocity = step.after, step.goal["velocity"]
        force, height = motion.sensors["foot_force"], motion.sensors["foot_height"]
        moving = is_moving(velocity)
        velocity_error = np.sum((motion.base_velocity[:, :2] - velocity[:, :2]) ** 2, 1)
        turn_error = (motion.angular_velocity[:, 2] - velocity[:, 2]) ** 2
        gravity = projected_gravity(motion.orientation)
        contact = force > CONTACT
        touching = contact | step.episode["contact"]

        # The clock: swing in (0, 1] while the foot should be in the air, 0 in stance.
        phase = self.interface.phase(step.before, step.memory)
        swing = np.sin(2 * np.pi * (phase[:, None] + FOOT_PHASE)) * moving[:, None]
        wanted = self.swing_height * np.maximum(swing, 0.0)
        in_air = np.exp(-(((height - wanted) / 0.05) ** 2)) * ~contact
        speed = np.sum(motion.sensors["foot_velocity"][:, :, :2] ** 2, 2)
        on_ground = touching * np.exp(-speed / 0.1)
        share = np.clip(0.5 + 2.0 * swing, 0.0, 1.0) * moving[:, None]  # ramp between the two
        gait = np.mean(share * in_air + (1 - share) * on_ground, 1)

        offset = motion.position - self.robot.stand
        limit = self.interface.action_limit
        change = np.clip(step.action, -limit, limit) - step.memory["action"]
        weight = self.rewards
        terms = {
            "track_velocity": weight.track_velocity * np.exp(-velocity_error / 0.25),
            "track_turn": weight.track_turn * np.exp(-turn_error / 0.25),
            "gait": weight.gait * gait,
            "pose": weight.pose
            * np.exp(-np.sum(offset[:, HIP] ** 2, 1) * 2 - np.sum(offset[:, THIGH] ** 2, 1) * 0.5),
            "height": weight.height * (motion.base_position[:, 2] - 0.30) ** 2,
            "vertical": weight.vertical * motion.base_velocity[:, 2] ** 2,
            "wobble": weight.wobble * np.sum(motion.angular_velocity[:, :2] ** 2, 1),
            "tilt": weight.tilt * np.sum(gravity[:, :2] ** 2, 1),
            "action_rate": weight.action_rate * np.sum(change**2, 1),
            "energy": weight.energy * np.sum(np.abs(motion.torque * motion.velocity), 1),
            "slip": weight.slip * np.sum(contact * speed, 1),
        }
        terms = {name: value * self.control_dt for name, value in terms.items()}
        return np.maximum(sum(terms.values()), 0.0), terms

    def margin(self, measured: Measured, episode: Episode) -> Array:
        """Upright by more than 60 degrees from fallen, and the base above 0.15 m; of unit size
        when standing."""
        upright = -projected_gravity(measured.orientation)[:, 2]
        return np.minimum(2.0 * upright - 1.0, (measured.base_position[:, 2] - 0.15) / 0.15)

    def advance(self, step: Step, draw: Array) -> tuple[Goal, Episode]:
        """Now and then a new goal."""
        renew = step.steps % round(self.goal_seconds / self.control_dt) == 0
        velocity = step.goal["velocity"]
        if renew.any():
            velocity = np.where(renew[:, None], self.sample_velocity(draw), velocity)
        return {"velocity": velocity}, {"contact": step.after.sensors["foot_force"] > CONTACT}

    def push(self, steps: NDArray[np.int64], draw: Array) -> Array | None:
        """Kicks of up to 0.5 m/s along each axis of the plane."""
        if not self.randomise:
            return None
        due = (steps + 1) % round(self.push_seconds / self.control_dt) == 0
        if not due.any():
            return None
        kick = np.zeros((len(steps), 3))
        kick[due, :2] = (2 * draw[due] - 1) * 0.5
        return kick


TASK = Go2Velocity
