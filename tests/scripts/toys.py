"""A small world of three discs, one task for all that is shown and evaluated.

Several agents in a world, a goal of two parts (a place, and words), an image among the
observations, and metrics of every kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.classic_control import Continuous_MountainCarEnv
from motoric.control.command import MotorCommand
from motoric.envs.registry import TASKS
from motoric.envs.task import Task
from motoric.hardware.goals import TEXT, Part
from motoric.hardware.interfaces.base import Interface, Metric, Tensor
from motoric.hardware.measured import Measured
from motoric.hardware.runtime.bundle import Bundle, BundleSpec, Input

from ..conftest import linear, policy_network, write_policy

DISCS = """<mujoco><worldbody><light pos="0 0 3"/>
<geom type="plane" size="3 3 .1" rgba="1 1 1 1"/>{}</worldbody></mujoco>"""
DISC = """<body name="disc{0}" pos="0 0 .1"><joint name="x{0}" type="slide" axis="1 0 0"/>
<joint name="y{0}" type="slide" axis="0 1 0"/>
<geom type="cylinder" size=".15 .1" rgba=".1 .1 .2 1"/></body>"""
PLACE = Part("place", ("x", "y"), ("m", "m"), (-1.0, -2.0), (1.0, 2.0))
WORDS = Part("instruction", ("words",), (TEXT,), (0.0,), (40.0,))


@dataclass(frozen=True)
class PlaneInterface(Interface):
    """Sees place and goal, [4], and a picture as bright as x; the action is a velocity."""

    robot: Any = None
    rate: float = 20.0

    name = "plane"
    goals = (PLACE, WORDS)
    inputs = (Tensor("observation", (4,)), Tensor("camera", (12, 16, 3), "uint8"))
    metrics = (
        Metric("x", "m"), Metric("distance", "m", "last", "distance left"),
        Metric("arrived", "", "any", "arrived"), Metric("travelled", "m", "sum", "travelled"),
    )  # fmt: skip
    action_low, action_high = -np.ones(2), np.ones(2)

    def observe(self, measured, goal, memory):
        place = measured.base_position[:, :2]
        bright = np.clip(100 + 50 * place[:, 0], 0, 255).astype(np.uint8)
        return {
            "observation": np.concatenate([place, goal["place"]], 1).astype(np.float32),
            "camera": np.broadcast_to(bright[:, None, None, None], (len(place), 12, 16, 3)).copy(),
        }

    def command(self, action, measured, goal, memory):
        zero = np.zeros_like(action)
        return MotorCommand(zero, np.clip(action, -1, 1), zero, zero, zero), memory

    def measure(self, measured, goal):
        place = measured.base_position[:, :2]
        distance = np.linalg.norm(place - goal["place"], axis=1)
        speed = np.linalg.norm(measured.base_velocity[:, :2], axis=1)
        return {"x": place[:, 0], "distance": distance, "arrived": (distance < 0.1).astype(float),
                "travelled": speed / self.rate}  # fmt: skip


class PlaneSimulation:
    """Points that move as they are told."""

    def __init__(self, rows: int, agents: int) -> None:
        self.rows, self.agents = rows, agents
        discs = "".join(DISC.format(i) for i in range(agents))
        self.model = mujoco.MjModel.from_xml_string(DISCS.format(discs))
        self.place, self.velocity = np.zeros((rows, 2)), np.zeros((rows, 2))

    @property
    def poses(self):
        return self.place.reshape(-1, 2 * self.agents)

    def reset(self, ids, start, physics):
        self.place[ids], self.velocity[ids] = start, 0.0

    def step(self, command, substeps):
        self.velocity = command.velocity
        self.place = self.place + 0.05 * self.velocity

    def measure(self):
        n, zero = self.rows, np.zeros((self.rows, 1))
        return Measured(
            np.zeros(n), zero, zero, zero, np.tile([1.0, 0, 0, 0], (n, 1)), np.zeros((n, 3)),
            np.concatenate([self.place, zero], 1), np.concatenate([self.velocity, zero], 1),
        )  # fmt: skip

    def push(self, velocity):
        self.place = self.place + velocity[:, :2]


@dataclass(frozen=True)
class Discs(Task):
    """Three to a world; each has a place of its own to go to, and may not leave the floor."""

    episode_seconds: float = 4.0

    name = "discs"
    interface = PlaneInterface()
    agents = 3

    def simulation(self, engine, rows, threads):
        return PlaneSimulation(rows, self.agents)

    def reset(self, draw):
        place = np.array(PLACE.low) + draw[:, 2:4] * (np.array(PLACE.high) - PLACE.low)
        words = np.tile(WORDS.rest, (len(draw), 1))
        return 0.2 * draw[:, :2], {"place": place, "instruction": words}, {}, {}

    def reward(self, step):
        distance = np.linalg.norm(step.after.base_position[:, :2] - step.goal["place"], axis=1)
        return -distance, {"distance": -distance}

    def margin(self, measured, episode):
        return 3.0 - np.abs(measured.base_position[:, :2]).max(1)


@pytest.fixture
def discs(tmp_path, monkeypatch) -> Path:
    """A run folder with a policy that goes where it is asked to."""
    monkeypatch.setitem(TASKS._loaded, "discs", Discs)
    weight = np.array([[-1.0, 0], [0, -1], [1, 0], [0, 1]])
    spec = BundleSpec(
        task="discs", action=Tensor("action", (2,)), rate=20.0,
        networks=(policy_network((Input("observation", (4,)),), (Tensor("action", (2,)),)),),
        training={"engine": "mujoco", "algorithm": "hand", "steps": 0},
    )  # fmt: skip
    write_policy(tmp_path / "discs" / "bundle" / "best", linear(weight, np.zeros(2)), spec)
    return tmp_path / "discs"


@pytest.fixture
def discs_bundle(discs) -> Bundle:
    return Bundle.load(discs / "bundle" / "best")


class PicturedCar(Continuous_MountainCarEnv):
    """Drawn without pygame: a pole where the car is."""

    def render(self):
        frame = np.full((400, 600, 3), 255, np.uint8)
        at = int(600 * (self.state[0] + 1.2) / 1.8)
        frame[:, max(0, at - 20) : at + 20] = (200, 30, 30)
        return frame


gym.register("PicturedCar-v0", entry_point=PicturedCar, max_episode_steps=999)


@pytest.fixture
def mountain_car(tmp_path) -> Path:
    """A run folder of a Gymnasium environment without a model; it pushes the way the car rolls."""
    spec = BundleSpec(
        task="PicturedCar-v0", action=Tensor("action", (1,)),
        networks=(policy_network((Input("observation", (2,)),), (Tensor("action", (1,)),)),),
        training={"algorithm": "hand", "steps": 0},
    )  # fmt: skip
    folder, weight = tmp_path / "mountain_car", np.array([[0.0], [14.0]])
    write_policy(folder / "bundle" / "best", linear(weight, np.zeros(1)), spec)
    return folder
