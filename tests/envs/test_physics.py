"""What differs between robots, and what training leaves out, changes what it says and no more."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest
from motoric.control.command import hold
from motoric.envs.engine import Physics, Start
from motoric.envs.engines.mujoco import MujocoSimulation
from motoric.envs.engines.pybullet import PyBulletSimulation
from motoric.envs.registry import make_batch, make_task
from motoric.envs.scene import Scene, Shortcuts
from motoric.envs.tasks.go2_velocity import Go2Velocity
from motoric.hardware.specs.go2 import GO2

NOMINAL = Physics.nominal(2)


def falling(kind, physics, substeps=4, **scene):
    """Two robots in the air with moving joints and slack motors; the joints' velocities then."""
    sim = kind(Scene.of(GO2, **scene), 2)
    start = Start(
        base_position=np.tile([0.0, 0.0, 2.0], (2, 1)),
        orientation=np.tile([1.0, 0, 0, 0], (2, 1)),
        base_velocity=np.zeros((2, 6)),
        position=np.tile(GO2.stand, (2, 1)),
        velocity=np.tile(np.linspace(-3, 3, 12), (2, 1)),
    )
    sim.reset(np.arange(2), start, physics)
    zero = np.zeros(12)
    sim.step(hold(start.position, zero, zero), substeps)
    return sim, sim.measure().velocity


@pytest.mark.parametrize("kind", [MujocoSimulation, PyBulletSimulation])
@pytest.mark.parametrize("key", ["armature", "drag"])
def test_a_factor_is_of_its_own_robot_and_one_is_as_it_was(kind, key):
    _, nominal = falling(kind, NOMINAL)
    other = dataclasses.replace(NOMINAL, **{key: np.array([1.0, 2.0])})
    _, found = falling(kind, other)
    np.testing.assert_array_equal(found[0], nominal[0])
    assert np.abs(found[1] - nominal[1]).max() > 0.02


@pytest.mark.parametrize("key", ["armature", "drag"])
def test_both_engines_mean_the_same_by_a_factor(key):
    changes = []
    for kind in (MujocoSimulation, PyBulletSimulation):
        _, nominal = falling(kind, NOMINAL)
        _, found = falling(kind, dataclasses.replace(NOMINAL, **{key: np.array([0.5, 2.0])}))
        changes.append(found - nominal)
    np.testing.assert_allclose(changes[1], changes[0], atol=0.15 * np.abs(changes[0]).max())


def test_factors_are_on_the_models_own_numbers():
    factors = dataclasses.replace(NOMINAL, armature=np.array([0.5, 1.5]), drag=np.array([0.0, 2.0]))
    sim, _ = falling(MujocoSimulation, factors)
    model = sim.model
    for name, factor in (
        ("dof_armature", factors.armature), ("dof_damping", factors.drag),
        ("dof_frictionloss", factors.drag),
    ):  # fmt: skip
        own = getattr(model, name)
        wanted = own * np.asarray(factor)[:, None]
        np.testing.assert_array_equal(sim.save_state()[name][:, 6:], wanted[:, 6:])


def test_a_saved_simulation_has_its_factors():
    factors = dataclasses.replace(NOMINAL, armature=np.array([0.5, 1.5]))
    for kind in (MujocoSimulation, PyBulletSimulation):
        sim, _ = falling(kind, factors)
        other, _ = falling(kind, NOMINAL)
        other.load_state(sim.save_state())
        zero = np.zeros(12)
        for one in (sim, other):
            one.step(hold(np.tile(GO2.stand, (2, 1)), zero, zero), 4)
        np.testing.assert_array_equal(other.measure().velocity, sim.measure().velocity)


def test_shortcuts_leave_out_what_they_say():
    whole = Scene.of(GO2).model
    short = Scene.of(
        GO2, timestep=0.01, shortcuts=Shortcuts(damping=0.3, feet_only=True, sweeps=10)
    ).model
    assert (short.opt.timestep, short.opt.solver, short.opt.iterations) == (
        0.01, mujoco.mjtSolver.mjSOL_PGS, 10,
    )  # fmt: skip
    assert (short.dof_damping[6:] == 0.3).all()
    assert not short.dof_frictionloss.any()
    solid = [g for g in range(short.ngeom) if short.geom_contype[g] or short.geom_conaffinity[g]]
    assert {short.geom(g).name for g in solid} == {"floor", *GO2.feet}
    for name in ("body_mass", "body_inertia", "dof_armature", "jnt_range", "geom_friction"):
        np.testing.assert_array_equal(getattr(short, name), getattr(whole, name))


def test_pybullet_takes_no_shortcuts():
    with pytest.raises(ValueError, match="engine: 'pybullet' has one floating robot on a plane"):
        make_batch("go2_velocity", 1, engine="pybullet", options={"shortcuts": {"sweeps": 10}})


@pytest.mark.parametrize("timestep", [0.005, 0.01])
def test_latency_is_the_same_time_in_longer_steps(timestep):
    """Never shorter than drawn, and by less than a step longer."""
    task = Go2Velocity(timestep=timestep)
    draw = np.linspace(0, 0.999, 100)
    seconds = np.floor(4 * draw) * 0.005
    longer = task.latency_steps(draw) * timestep - seconds
    assert (longer > -1e-9).all()
    assert (longer < timestep - 1e-9).all()
    assert task.substeps * timestep == pytest.approx(task.control_dt)


def test_training_draws_beyond_the_box_and_nobody_else():
    draw = np.random.default_rng(0).random((5000, 7))
    for beyond in (1.0, 1.2):
        task = make_task("go2_velocity", {"beyond": beyond})
        (part,) = task.interface.goals
        drawn = task.sample_velocity(draw)
        np.testing.assert_allclose(drawn.min(0), beyond * np.array(part.low), rtol=0.02)
        np.testing.assert_allclose(drawn.max(0), beyond * np.array(part.high), rtol=0.02)


def test_a_timestep_that_is_no_part_of_an_action_is_refused():
    with pytest.raises(ValueError, match=r"timestep: 0.003, expected a part of 0.02 s"):
        make_task("go2_velocity", {"timestep": 0.003})
