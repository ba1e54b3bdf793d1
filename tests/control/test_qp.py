"""Small QPs against exact enumeration, optimality conditions, and the LP of infeasible ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motoric.control import qp
from motoric.control.qp import least_violation, project, project_compiled, unit_rows
from qp_problems import enumerated, problems


@pytest.mark.parametrize("radius", [np.inf, 0.8])
@pytest.mark.parametrize(
    ("m", "n"), [(0, 100), (1, 10_000), (2, 30_000), (8, 20_000), (16, 5000), (40, 300)]
)
def test_is_the_exact_optimum(m, n, radius):
    for seed, feasible in enumerate((True, False)):
        wish, normals, offsets = problems(n, m, seed, box=m > 8, feasible=feasible)
        u = project(wish, normals, offsets, radius)
        exact = enumerated(wish, normals, offsets, radius)
        np.testing.assert_array_equal(np.isnan(u), np.isnan(exact))
        np.testing.assert_allclose(u, exact, atol=1e-8, rtol=0)
        if m:
            gap = offsets - np.einsum("nmi,ni->nm", normals, np.nan_to_num(u))
            assert gap[~np.isnan(u[:, 0])].max() < 1e-9
        assert not feasible or not np.isnan(u).any()
        assert (np.linalg.norm(np.nan_to_num(u), axis=-1) <= radius + 1e-12).all()


def test_optimality_conditions():
    """The push is a sum of at most two active normals, none of them negative."""
    wish, normals, offsets = problems(5000, 12)
    u = project(wish, normals, offsets)
    slack = np.einsum("nmi,ni->nm", normals, u) - offsets
    for i in np.flatnonzero((u != wish).any(axis=1))[:2000]:
        active = np.flatnonzero(slack[i] < 1e-9)
        pairs = itertools.combinations_with_replacement(active, 2)
        fits = []
        for pair in pairs:
            a = normals[i, list(dict.fromkeys(pair))].T
            weights = np.linalg.lstsq(a, u[i] - wish[i], rcond=None)[0]
            fits.append((weights > -1e-9).all() and np.allclose(a @ weights, u[i] - wish[i]))
        assert any(fits)


def test_one_many_and_blocks_agree_to_the_bit(monkeypatch):
    wish, normals, offsets = problems(2500, 8, feasible=False)
    for radius in (np.inf, 0.7):
        u = project(wish, normals, offsets, radius)
        one = [project(wish[i : i + 1], normals[i : i + 1], offsets[i : i + 1], radius)[0]
               for i in range(400)]  # fmt: skip
        np.testing.assert_array_equal(u[:400], one)
        for block in (7, 100_000):
            monkeypatch.setattr(qp, "BLOCK", block)
            np.testing.assert_array_equal(u, project(wish, normals, offsets, radius))
        monkeypatch.undo()


def test_compiled_agrees():
    pytest.importorskip("numba")
    for m, radius in ((0, 0.5), (8, np.inf), (8, 0.7), (32, 0.7)):
        problem = problems(10_000, m, feasible=False)
        np.testing.assert_allclose(
            project_compiled(*problem, radius), project(*problem, radius), atol=1e-12, rtol=0
        )


def test_compiled_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    qp._compiled.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'motoric\[numba\]'"):
        project_compiled(*problems(2, 3))


@given(st.integers(0, 10**6), st.floats(0, 2 * np.pi), st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_the_plane_has_no_preferred_direction(seed, angle, scale):
    wish, normals, offsets = problems(12, 10, seed)
    u = project(wish, normals, offsets, 0.9)
    order = np.random.default_rng(seed).permutation(offsets.shape[1])
    shuffled = project(wish, normals[:, order], offsets[:, order], 0.9)
    np.testing.assert_allclose(shuffled, u, atol=1e-10)
    c, s = np.cos(angle), np.sin(angle)
    for turn in (np.array([[c, -s], [s, c]]), np.array([[c, s], [s, -c]])):  # and mirrored
        turned = project(wish @ turn.T, *unit_rows(normals @ turn.T, offsets), 0.9)
        np.testing.assert_allclose(turned, u @ turn.T, atol=1e-10)
    rows = unit_rows(scale * normals, scale * offsets)
    np.testing.assert_allclose(project(wish, *rows, 0.9), u, atol=1e-10)


def rows_of(*rows):
    """(angle, offset) of one problem, sixteen times, so that it is solved in a block."""
    angle, offset = np.array(rows, np.float64).T
    normals = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.tile(normals, (16, 1, 1)), np.tile(offset, (16, 1))


@pytest.mark.parametrize("n", [1, 16])
def test_degenerate_rows(n):
    def solve(wish, rows, radius=np.inf):
        normals, offsets = rows_of(*rows)
        return project(np.tile(wish, (n, 1)), normals[:n], offsets[:n], radius)

    half = np.pi / 2
    np.testing.assert_allclose(solve([0, 0.0], [(0, 1), (0, 1)]), [[1, 0]] * n, atol=1e-12)
    # Opposite, with no width between them; then with less than none.
    np.testing.assert_allclose(solve([5, 2.0], [(0, 1), (np.pi, -1)]), [[1, 2]] * n, atol=1e-9)
    assert np.isnan(solve([5, 2.0], [(0, 1), (np.pi, -1 + 1e-6)])).all()
    # All through one point.
    through = [(a, np.cos(a) + np.sin(a)) for a in np.linspace(-0.2, half + 0.2, 9)]
    np.testing.assert_allclose(solve([0, 0.0], through), [[1, 1]] * n, atol=1e-9)
    # A hair apart in angle: a row violated by less than 1e-12 holds, wherever they cross.
    for angle in (1e-7, 1e-5, 1e-3):
        u = solve([0, 0.0], [(0, 1), (angle, 1)])
        np.testing.assert_allclose(np.linalg.norm(u, axis=-1), 1 / np.cos(angle / 2), atol=1e-12)
        assert (np.cos(angle) * u[:, 0] + np.sin(angle) * u[:, 1] >= 1 - 1e-12).all()
    # On a vertex already; on nothing; a row that isn't there.
    corner = [(0, 1), (half, 1)]
    np.testing.assert_array_equal(solve([1 + 1e-15, 1.0], corner), [[1 + 1e-15, 1.0]] * n)
    np.testing.assert_array_equal(solve([3, 4.0], [(0, -np.inf), (1, -np.inf)]), [[3, 4]] * n)
    # A disc that a row touches in one point, and one that it misses; no disc at all.
    np.testing.assert_allclose(solve([0, 1.0], [(0, 1)], 1.0), [[1, 0]] * n, atol=1e-9)
    assert np.isnan(solve([0, 1.0], [(0, 1 + 1e-6)], 1.0)).all()
    np.testing.assert_array_equal(solve([0.3, 1.0], [(0, 0)], 0.0), [[0, 0]] * n)


@pytest.mark.parametrize("n", [1, 20])
def test_what_is_no_number_is_refused(n):
    wish, normals, offsets = problems(n, 3)
    project(wish, normals, offsets)
    for which, value, says in ((0, np.nan, "wish"), (0, np.inf, "wish"), (1, np.nan, "normals"),
                               (1, 0.5, "normals"), (2, np.nan, "offsets"),
                               (2, np.inf, "offsets")):  # fmt: skip
        bad = [a.copy() for a in (wish, normals, offsets)]
        bad[which][-1, 0] = value
        with pytest.raises(ValueError, match=f"^qp: {says}"):
            project(*bad)
    for radius in (np.nan, -1.0):
        with pytest.raises(ValueError, match=r"^qp: radius"):
            project(wish, normals, offsets, radius)
    with pytest.raises(ValueError, match=r"^qp: shapes"):
        project(wish, normals[:, :2], offsets)
    with pytest.raises(ValueError, match="zero normal"):
        unit_rows(np.zeros((1, 2)), np.ones(1))
    assert unit_rows(np.zeros((1, 2)), np.zeros(1))[1] == -np.inf


def test_rows_that_contradict_give_way_by_the_least_amount():
    from scipy.optimize import linprog

    wish, normals, offsets = problems(60, 7, seed=3, box=False, feasible=False)
    offsets += 0.6
    none = np.isnan(project(wish, normals, offsets)[:, 0])
    assert 20 < none.sum() < 60
    u = least_violation(wish, normals, offsets)
    for i in np.flatnonzero(none):
        rows = np.column_stack([-normals[i], -np.ones(7)])
        best = linprog([0, 0, 1], rows, -offsets[i], bounds=[(None, None)] * 2 + [(0, None)])
        violated = (offsets[i] - normals[i] @ u[i]).max()
        assert violated == pytest.approx(best.x[2], abs=1e-8)
    np.testing.assert_array_equal(u[~none], project(wish, normals, offsets)[~none])


def test_only_soft_rows_give_way():
    normals = np.array([[[1.0, 0.0], [-1.0, 0.0]]])
    offsets, soft = np.array([[0.5, 0.0]]), np.array([[True, False]])
    u = least_violation(np.array([[2.0, 0.3]]), normals, offsets, soft=soft)
    np.testing.assert_allclose(u, [[0.0, 0.3]], atol=1e-9)
    with pytest.raises(ValueError, match="may not give way"):
        least_violation(np.array([[2.0, 0.3]]), normals, offsets, soft=~soft)
