"""A fixed-base arm by impedance: the model, the interface's stiffness, and that reaching pays."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from motoric.envs.batched import BatchedEnv
from motoric.envs.tasks.x_arm6_reach import XArm6Reach, tip
from motoric.hardware.models import load_model
from motoric.hardware.simulated.body import Body
from motoric.hardware.specs.x_arm6 import X_ARM6
from motoric.scripts import config


def reach(worlds: int = 4, **options) -> BatchedEnv:
    return BatchedEnv(XArm6Reach(**{"randomise": False} | options), worlds, num_threads=1)


def test_the_spec_is_that_of_the_real_arms_configuration():
    from motoric.hardware.drivers import spec_of

    real = spec_of(config.load("check", ["robot=x_arm6"]).robot)
    assert real.joints == X_ARM6.joints
    for name in ("stand", "rest", "kp", "kd", "damping"):
        np.testing.assert_array_equal(getattr(real, name), getattr(X_ARM6, name))
    for name in ("lower", "upper", "velocity", "torque", "target_rate"):
        np.testing.assert_array_equal(getattr(real.limits, name), getattr(X_ARM6.limits, name))


def test_the_model_can_hold_its_stand_and_lies_at_rest():
    model = load_model(X_ARM6)
    np.testing.assert_allclose(model.jnt_range[:, 0], X_ARM6.limits.lower)
    np.testing.assert_allclose(model.jnt_range[:, 1], X_ARM6.limits.upper)
    data = mujoco.MjData(model)
    data.ctrl[:] = X_ARM6.stand
    for _ in range(1000):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos, X_ARM6.stand, atol=0.1)
    assert np.abs(data.actuator_force / X_ARM6.limits.torque).max() < 0.6
    body = Body(X_ARM6)
    np.testing.assert_allclose(body.state().position, X_ARM6.rest, atol=0.1)


def test_where_the_tip_is():
    """Our arithmetic and MuJoCo's, for any pose."""
    env = reach(32)
    env.sim.qpos[:] = np.random.default_rng(0).uniform(
        X_ARM6.limits.lower, X_ARM6.limits.upper, (32, 6)
    )
    env.sim.batch.forward()
    found = env.sim.measure()
    np.testing.assert_allclose(tip(found.position[:, :4]), found.sensors["tip"], atol=1e-9)


def test_goals_are_within_their_bounds_and_can_be_reached():
    (part,) = XArm6Reach().interface.goals
    _, goal, _, _ = XArm6Reach().reset(np.random.default_rng(0).random((2000, 16)))
    assert (goal["tip"] >= part.low).all()
    assert (goal["tip"] <= part.high).all()
    assert np.std(goal["tip"], axis=0).min() > 0.02


def test_a_soft_joint_sags_and_a_stiff_one_less():
    """kp reaches the motors: what gravity makes of the same target."""
    env = reach(2)
    action = np.zeros((2, 12))
    action[0, 6:], action[1, 6:] = -1.0, 1.0
    for _ in range(50):
        env.step(action)
    soft, stiff = env.measured.position[:, 1]
    assert soft < -0.3
    assert stiff > -0.12
    np.testing.assert_allclose(env.command.kp[1], X_ARM6.kp)
    np.testing.assert_allclose(env.command.kp[0], 0.05 * X_ARM6.kp, rtol=1e-6)


def test_reaching_pays_and_stiffness_costs():
    env = reach(2)
    env.hold_goal([0.28, 0.0, 0.1])
    returns = np.zeros(2)
    for _ in range(60):
        action = np.zeros((2, 12))
        action[1, 0] = 1.0  # turns away
        returns += env.step(action)[1]
    assert returns[0] > returns[1] + 10
    *_, info = env.step(np.concatenate([np.zeros((2, 6)), [[-1.0] * 6, [1.0] * 6]], axis=1))
    assert info["terms"]["soft"][0] > info["terms"]["soft"][1]


def test_a_goal_out_of_reach_is_refused():
    with pytest.raises(
        ValueError, match=r"goal\.tip: z 1, the policy was trained for 0.02 to 0.35"
    ):
        reach().hold_goal([0.1, 0.0, 1.0])
