"""The desk arm of x_arm6.py under a camera that looks at it from the side."""

from __future__ import annotations

import dataclasses

from motoric.hardware.robot import Sensor
from motoric.hardware.specs.x_arm6 import X_ARM6

X_ARM6_EYE = dataclasses.replace(
    X_ARM6, name="x_arm6_eye", sensors=(Sensor("eye", (48, 64, 3), "uint8"),)
)

SPEC = X_ARM6_EYE
