"""Walk a Unitree Go2 at a commanded velocity: forward, sideways and turning.

The reward is the usual sum for legged velocity tracking (Rudin et al., 2022) with a gait clock
that asks for a trot (Siekmann et al., 2021): swing feet follow a height profile, stance feet
stay put. Every function is pure over arrays with a leading dimension N.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from motoric.envs.engine import Array, Motion, Physics, Pose
from motoric.envs.random import spread
from motoric.hardware.interfaces.terms import (
    Measured,
    Term,
    is_moving,
    observation_size,
    observe,
    projected_gravity,
)
from motoric.hardware.robot import RobotSpec
from motoric.hardware.specs.go2 import GO2
from numpy.typing import NDArray

# Phase of each foot in the trot: FL with RR, FR with RL, half a cycle apart.
FOOT_PHASE = np.array([0.0, 0.5, 0.5, 0.0])
HIP, THIGH, CALF = np.arange(0, 12, 3), np.arange(1, 12, 3), np.arange(2, 12, 3)


@dataclass
class Episode:
    """The task's memory of N running episodes.

    command [N, 3]: forward m/s, left m/s, turn left rad/s; action [N, A]: the last one;
    phase [N]: of the gait clock, cycles; contact [N, F]: feet that touched at the last step.
    """

    command: Array
    action: Array
    phase: Array
    contact: NDArray[np.bool_]


@dataclass(frozen=True)
class Rewards:
    """Weight of each reward term, per second."""

    track_velocity: float = 2.5
    track_turn: float = 0.75
    gait: float = 2.5
    pose: float = 0.5
    height: float = -20.0
    vertical: float = -1.0
    wobble: float = -0.05
    tilt: float = -4.0
    action_rate: float = -0.2
    energy: float = -0.0005
    slip: float = -0.1


@dataclass(frozen=True)
class Go2Velocity:
    """The task. `randomise=False` gives nominal physics, no sensor noise and no pushes."""

    randomise: bool = True
    rewards: Rewards = field(default_factory=Rewards)
    episode_seconds: float = 20.0

    name = "go2_velocity"
    robot: RobotSpec = field(default=GO2, init=False, repr=False)
    control_dt = 0.02  # s
    substeps = 4
    action_limit = 1.0
    gait_frequency = 2.0  # Hz
    swing_height = 0.07  # m
    terms = (
        Term("angular_velocity", 3, 0.25),
        Term("projected_gravity", 3),
        Term("joint_position", 12),
        Term("joint_velocity", 12, 0.05),
        Term("action", 12),
        Term("command", 3),
        Term("gait_clock", 2),
    )
    command_low = (-0.6, -0.4, -0.8)
    command_high = (1.0, 0.4, 0.8)
    command_seconds = 5.0  # a new command every so often
    push_seconds = 6.0
    # sensor noise per term, half width, in the observation's units
    noise = (0.05, 0.03, 0.01, 0.075, 0.0, 0.0, 0.0)

    @property
    def action_scale(self) -> Array:
        """Joint target per unit of action, rad, [A]."""
        return np.tile([0.6, 1.0, 1.0], 4)

    @property
    def action_size(self) -> int:
        return len(self.robot.joints)

    @property
    def observation_size(self) -> int:
        return observation_size(self.terms)

    @property
    def episode_steps(self) -> int:
        return round(self.episode_seconds / self.control_dt)

    def reset(self, draw: Array) -> tuple[Pose, Episode]:
        """Standing robots with scattered joints and headings, from uniform draws [M, 64]."""
        m = len(draw)
        u = 2 * draw - 1
        yaw = np.pi * u[:, 0]
        orientation = np.zeros((m, 4))
        orientation[:, 0], orientation[:, 3] = np.cos(yaw / 2), np.sin(yaw / 2)
        position = np.zeros((m, 3))
        position[:, 2] = self.robot.base_height + 0.01
        pose = Pose(
            base_position=position,
            orientation=orientation,
            base_velocity=u[:, 1:7] * np.array([0.3, 0.3, 0.1, 0.2, 0.2, 0.2]),
            position=self.robot.stand + 0.1 * u[:, 7:19],
            velocity=0.2 * u[:, 19:31],
        )
        episode = Episode(
            command=self.sample_command(draw[:, 31:38]),
            action=np.zeros((m, self.action_size)),
            phase=draw[:, 38].copy(),
            contact=np.ones((m, len(self.robot.feet)), bool),
        )
        return pose, episode

    def physics(self, draw: Array) -> Physics:
        """Physics of M robots from uniform draws [M, 4]; nominal unless randomising."""
        if not self.randomise:
            m = len(draw)
            return Physics(np.full(m, 0.8), np.zeros(m), np.ones(m), np.zeros(m, np.int64))
        return Physics(
            friction=spread(0.4, 1.2, draw[:, 0]),
            payload=spread(-1.0, 2.0, draw[:, 1]),
            strength=spread(0.85, 1.15, draw[:, 2]),
            latency=np.floor(spread(0.0, 4.0, draw[:, 3])).astype(np.int64),
        )

    def sample_command(self, draw: Array) -> Array:
        """Commands [M, 3] from uniform draws [M, 7]; some axes are zero, one in ten stands."""
        low, high = np.array(self.command_low), np.array(self.command_high)
        command = low + (high - low) * draw[:, :3]
        command *= draw[:, 3:6] < np.array([0.9, 0.5, 0.6])
        return command * (draw[:, 6:7] > 0.1)

    def observe(self, motion: Motion, episode: Episode, draw: Array) -> NDArray[np.float32]:
        """The observation [N, O]; uniform draws [N, O] become sensor noise when randomising."""
        measured = Measured(
            orientation=motion.orientation,
            angular_velocity=motion.angular_velocity,
            position=motion.position,
            velocity=motion.velocity,
            stand=self.robot.stand,
            action=episode.action,
            command=episode.command,
            phase=episode.phase,
        )
        observation = observe(self.terms, measured)
        if self.randomise:
            width = np.repeat(self.noise, [t.size for t in self.terms])
            observation += ((2 * draw - 1) * width).astype(np.float32)
        return observation

    def reward(
        self, motion: Motion, episode: Episode, action: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Reward [N] of one step and its terms [N], already weighted and times control_dt."""
        moving = is_moving(episode.command)
        velocity_error = np.sum((motion.base_velocity[:, :2] - episode.command[:, :2]) ** 2, 1)
        turn_error = (motion.angular_velocity[:, 2] - episode.command[:, 2]) ** 2
        gravity = projected_gravity(motion.orientation)
        contact = motion.foot_force > 1.0
        touching = contact | episode.contact

        # The clock: swing in (0, 1] while the foot should be in the air, 0 in stance.
        swing = np.sin(2 * np.pi * (episode.phase[:, None] + FOOT_PHASE)) * moving[:, None]
        wanted = self.swing_height * np.maximum(swing, 0.0)
        in_air = np.exp(-(((motion.foot_height - wanted) / 0.03) ** 2)) * ~contact
        speed = np.sum(motion.foot_velocity[:, :, :2] ** 2, 2)
        on_ground = touching * np.exp(-speed / 0.1)
        share = np.clip(0.5 + 2.0 * swing, 0.0, 1.0) * moving[:, None]  # ramp between the two
        gait = np.mean(share * in_air + (1 - share) * on_ground, 1)

        offset = motion.position - self.robot.stand
        weight = self.rewards
        terms = {
            "track_velocity": weight.track_velocity * np.exp(-velocity_error / 0.25),
            "track_turn": weight.track_turn * np.exp(-turn_error / 0.25),
            "gait": weight.gait * gait,
            "pose": weight.pose
            * np.exp(-np.sum(offset[:, HIP] ** 2, 1) * 4 - np.sum(offset[:, THIGH] ** 2, 1) * 0.5),
            "height": weight.height * (motion.base_position[:, 2] - 0.30) ** 2,
            "vertical": weight.vertical * motion.base_velocity[:, 2] ** 2,
            "wobble": weight.wobble * np.sum(motion.angular_velocity[:, :2] ** 2, 1),
            "tilt": weight.tilt * np.sum(gravity[:, :2] ** 2, 1),
            "action_rate": weight.action_rate * np.sum((action - episode.action) ** 2, 1),
            "energy": weight.energy * np.sum(np.abs(motion.torque * motion.velocity), 1),
            "slip": weight.slip * np.sum(contact * speed, 1),
        }
        terms = {name: value * self.control_dt for name, value in terms.items()}
        return np.maximum(sum(terms.values()), 0.0), terms

    def terminated(self, motion: Motion) -> NDArray[np.bool_]:
        """Fallen: tilted by more than 60 degrees or with the base below 0.15 m, [N]."""
        upright = -projected_gravity(motion.orientation)[:, 2]
        return (upright < 0.5) | (motion.base_position[:, 2] < 0.15)

    def advance(
        self, motion: Motion, episode: Episode, action: Array, steps: NDArray[np.int64], draw: Array
    ) -> Episode:
        """The episodes after a step: clock forward, and now and then a new command.

        steps [N]: steps since reset; draw: uniform, [N, 7].
        """
        renew = steps % round(self.command_seconds / self.control_dt) == 0
        command = np.where(renew[:, None], self.sample_command(draw), episode.command)
        return Episode(
            command=command,
            action=action,
            phase=(episode.phase + self.gait_frequency * self.control_dt) % 1.0,
            contact=motion.foot_force > 1.0,
        )

    def push(self, steps: NDArray[np.int64], draw: Array) -> Array | None:
        """Kicks to the base velocity, m/s, [N, 3], or None; draw: uniform, [N, 2]."""
        if not self.randomise:
            return None
        due = (steps + 1) % round(self.push_seconds / self.control_dt) == 0
        if not due.any():
            return None
        kick = np.zeros((len(steps), 3))
        kick[due, :2] = (2 * draw[due] - 1) * 0.5
        return kick
