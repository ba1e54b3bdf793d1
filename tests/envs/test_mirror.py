"""Left becomes right: of the interface's numbers, and of the physics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from motoric.envs.batched import BatchedEnv
from motoric.envs.engine import Physics, Start
from motoric.envs.mirror import joint_mirror, mirror_of
from motoric.envs.tasks.go2_velocity import Go2Velocity
from motoric.hardware.interfaces.terms import Term
from motoric.hardware.specs.b2 import B2
from motoric.hardware.specs.g1 import G1
from motoric.hardware.specs.go2 import GO2

TASK = Go2Velocity(randomise=False)


def reflect(signed, x):
    index, sign = signed
    return x[..., index] * sign


@pytest.mark.parametrize("robot", [GO2, B2, G1], ids=lambda robot: robot.name)
def test_a_robots_stand_and_limits_are_symmetric(robot):
    index, sign = joint_mirror(robot)
    assert sorted(index) == list(range(len(robot.joints)))
    np.testing.assert_array_equal(robot.stand[index] * sign, robot.stand)
    low, high = robot.limits.lower[index] * sign, robot.limits.upper[index] * sign
    np.testing.assert_array_equal(np.minimum(low, high), robot.limits.lower)
    np.testing.assert_array_equal(np.maximum(low, high), robot.limits.upper)


def test_twice_in_the_mirror_is_as_before():
    mirror = TASK.mirror
    for name, size in (("observation", 47), ("action", 12)):
        x = np.random.default_rng(0).standard_normal((5, size))
        assert not np.array_equal(reflect(mirror[name], x), x)
        np.testing.assert_array_equal(reflect(mirror[name], reflect(mirror[name], x)), x)
    assert mirror["clock"] == 45


@pytest.mark.parametrize(
    ("height", "size", "steps", "tolerance"), [(1.5, 0.5, 20, 2e-2), (0.33, 0.1, 12, 2e-3)]
)
def test_a_mirrored_robot_moves_as_the_mirror_image(height, size, steps, tolerance):
    """Wildly in the air, and gently on its feet, where contacts that begin a little later would
    part the two; the trunk's published inertia is askew by a thousandth."""
    env = BatchedEnv(TASK, 2)
    rng = np.random.default_rng(1)
    joints = GO2.stand + 0.2 * size * rng.standard_normal(12)
    velocity = np.array([0.3, 0.2, 0.0, 0.1, -0.2, 0.3])
    mirror = TASK.mirror
    start = Start(
        base_position=np.tile([0.0, 0.0, height], (2, 1)),
        orientation=np.tile([1.0, 0, 0, 0], (2, 1)),
        base_velocity=np.stack([velocity, velocity * [1, -1, 1, -1, 1, -1]]),
        position=np.stack([joints, reflect(mirror["action"], joints)]),
        velocity=np.zeros((2, 12)),
    )
    env.sim.reset(np.arange(2), start, Physics.nominal(2))
    env.measured = env._measure()
    env.command.position = start.position.copy()
    env.memory = {"action": np.zeros((2, 12)), "phase": np.array([0.2, 0.7])}
    env.goal = {"velocity": np.array([[0.5, 0.2, -0.3], [0.5, -0.2, 0.3]])}
    for _ in range(steps):
        action = size * rng.standard_normal(12)
        obs = env.step(np.stack([action, reflect(mirror["action"], action)]))[0]
        np.testing.assert_allclose(reflect(mirror["observation"], obs[0]), obs[1], atol=tolerance)
        assert abs(obs[0] - obs[1]).max() > 0.1  # they are not the same
    assert env.measured.sensors["foot_force"].any() == (height < 1)


def test_a_term_of_unknown_image_is_refused():
    interface = dataclasses.replace(TASK.interface, terms=(Term("sensor.foot_force", 4),))
    with pytest.raises(ValueError, match=r"mirror: term 'sensor.foot_force' has no known mirror"):
        mirror_of(interface)
