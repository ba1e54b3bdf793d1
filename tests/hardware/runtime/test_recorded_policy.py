"""docs/recorded_policy.md, from top to bottom; it is about time, so it is with the robots'."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "recorded_policy.md"


@pytest.fixture(scope="module")
def page() -> types.ModuleType:
    module = types.ModuleType("example_recorded_policy")
    sys.modules[module.__name__] = module
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M):
        exec(compile(code, PAGE.name, "exec", dont_inherit=True), module.__dict__)
    return module


def test_it_plays_back_what_was_recorded(page, tmp_path):
    page.test_it_plays_back_what_was_recorded(tmp_path)


@pytest.mark.usefixtures("quick")
def test_sixty_milliseconds_at_twenty_hertz(page, tmp_path):
    page.test_sixty_milliseconds_at_twenty_hertz(tmp_path)


def test_in_the_dark_it_stays_where_it_is(page, tmp_path):
    """The camera is not for show."""
    import numpy as np
    from motoric.hardware.runtime.bundle import Bundle
    from motoric.hardware.runtime.policy import Policy

    page.write_recorded(tmp_path / "bundle")
    policy = Policy(Bundle.load(tmp_path / "bundle"))
    here = np.concatenate([np.full((1, 6), 0.1), np.zeros((1, 6))], axis=1).astype(np.float32)
    dark, light = (np.full((1, 48, 64, 3), grey, np.uint8) for grey in (0, 90))
    held = policy.infer({"observation": here, "eye": dark})
    np.testing.assert_allclose(held, np.full((1, 12, 6), 0.1), atol=1e-6)
    assert np.abs(policy.infer({"observation": here, "eye": light}) - held).max() > 0.1
