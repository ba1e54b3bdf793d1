"""What a simulated robot's sensors measure, as its spec describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from motoric.hardware.robot import RobotSpec, Sensor
from motoric.hardware.simulated.pictures import Pictures
from numpy.typing import NDArray

FRAMES = 30.0  # Hz at which cameras take images, at most


class Sensors:
    """The sensors of one robot in MuJoCo: those of the model by name, and its cameras.

    A camera is rendered when it is read, no sooner than 1 / FRAMES s of simulated time after its
    last image; until then that image is its value. Raises ValueError for a sensor that the model
    has not.
    """

    def __init__(self, spec: RobotSpec, model: mujoco.MjModel) -> None:
        self._model = model
        self._cameras = [s for s in spec.sensors if s.is_camera]
        self._numbers = [(s, _address(spec, model, s)) for s in spec.sensors if not s.is_camera]
        self._images: dict[str, NDArray[Any]] = {}
        self._pictures: dict[tuple[int, ...], Pictures] = {}
        self._due = -math.inf
        for camera in self._cameras:
            if _index(model, mujoco.mjtObj.mjOBJ_CAMERA, camera.name) < 0:
                raise ValueError(f"{spec.model} has no camera {camera.name!r}")

    def read(self, data: mujoco.MjData) -> Mapping[str, NDArray[Any]]:
        """The newest value of each."""
        if not self._numbers and not self._cameras:
            return {}
        found: dict[str, NDArray[Any]] = {
            sensor.name: data.sensordata[at].astype(sensor.dtype).reshape(sensor.shape)
            for sensor, at in self._numbers
        }
        if self._cameras and not self._due - 1.0 / FRAMES <= data.time < self._due:
            self._due = data.time + 1.0 / FRAMES - 1e-9
            for camera in self._cameras:
                if camera.shape not in self._pictures:
                    self._pictures[camera.shape] = Pictures(self._model, *camera.shape[:2])
                self._images[camera.name] = self._pictures[camera.shape].take(data, camera.name)
        return found | self._images

    def close(self) -> None:
        """Let go of the cameras. Safe to call more than once."""
        for pictures in self._pictures.values():
            pictures.close()


def _index(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    return mujoco.mj_name2id(model, kind, name)


def _address(spec: RobotSpec, model: mujoco.MjModel, sensor: Sensor) -> slice:
    """Where its numbers are among those of all sensors."""
    index = _index(model, mujoco.mjtObj.mjOBJ_SENSOR, sensor.name)
    if index < 0:
        raise ValueError(f"{spec.model} has no sensor {sensor.name!r}")
    size, numbers = int(model.sensor_dim[index]), int(np.prod(sensor.shape))
    if size != numbers:
        raise ValueError(
            f"sensor {sensor.name!r} of {spec.model} has {size} numbers, the robot's spec {numbers}"
        )
    start = int(model.sensor_adr[index])
    return slice(start, start + size)
