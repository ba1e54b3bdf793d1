"""What tests of robots share."""

from __future__ import annotations

import functools

import pytest
from motoric.control.supervisor import Supervisor, Thresholds


@pytest.fixture
def quick(monkeypatch):
    """Deployments rise, lie down and damp in less than half the usual time."""
    phases = Thresholds(soft_start=0.8, lie_down=0.6, damp=0.5)
    monkeypatch.setattr(
        "motoric.hardware.deploy.Supervisor", functools.partial(Supervisor, thresholds=phases)
    )
