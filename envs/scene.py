"""A scene: what is simulated, as data: robots, objects, terrain, cameras, sensors.

A single robot alone on its floor is the robot's model as it is; `compose.py` makes the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from motoric.hardware.robot import RobotSpec

SHAPES = ("box", "sphere", "cylinder", "capsule")


@dataclass(frozen=True)
class Placed:
    """A robot of a scene. prefix: before the names of its parts, "" for a robot alone

    position: of a fixed base, m, in the world; yaw: rad. A floating base is put by `Start`.
    """

    robot: RobotSpec
    prefix: str = ""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0


@dataclass(frozen=True)
class Object:
    """A solid thing. size: MuJoCo's half sizes of the shape, m; free: it moves; mass: kg

    friction: sliding; rgba: colour
    """

    name: str
    shape: str
    size: tuple[float, ...]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    free: bool = False
    mass: float = 0.1
    friction: float = 1.0
    rgba: tuple[float, float, float, float] = (0.85, 0.45, 0.2, 1.0)

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"object {self.name}: {self.shape!r}, expected one of {SHAPES}")


@dataclass(frozen=True)
class Marker:
    """A spot that is drawn and touches nothing; it can be moved (`Simulation.place`)."""

    name: str
    radius: float = 0.02
    rgba: tuple[float, float, float, float] = (0.2, 0.7, 0.3, 0.6)


@dataclass(frozen=True)
class Terrain:
    """A height field in place of the floor: heights [rows, columns] in m over `size` (x, y) m."""

    heights: tuple[tuple[float, ...], ...]
    size: tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """Looks from `position` at `target`, m in the world; fovy: degrees, upright."""

    name: str
    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float = 45.0


@dataclass(frozen=True)
class Sensor:
    """A sensor of MuJoCo's: kind without `mjSENS_` ("force", "framepos", "touch", ...), of an
    object ("site", "body", "geom", "joint", ...) by its name in the scene."""

    name: str
    kind: str
    object: str
    of: str


@dataclass(frozen=True)
class Shortcuts:
    """What training may leave out of the physics to be faster; nothing else should.

    damping: of the joints, N m s/rad, in place of their friction, which costs a constraint for
        each; 0: as the model has it
    feet_only: nothing but the feet touches the ground
    sweeps: of a projected Gauss-Seidel solver in place of the model's; 0: the model's
    """

    damping: float = 0.0
    feet_only: bool = False
    sweeps: int = 0


@dataclass(frozen=True)
class Scene:
    """Robots first; `timestep`: of physics, s, None: the robot's model's."""

    robots: tuple[Placed, ...]
    objects: tuple[Object, ...] = ()
    markers: tuple[Marker, ...] = ()
    terrain: Terrain | None = None
    cameras: tuple[Camera, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    timestep: float | None = None
    shortcuts: Shortcuts = Shortcuts()

    @classmethod
    def of(cls, robot: RobotSpec, **more: Any) -> Scene:
        """One robot on its floor."""
        return cls((Placed(robot),), **more)

    def __post_init__(self) -> None:
        if not self.robots:
            raise ValueError("scene: no robot in it")
        prefixes = [placed.prefix for placed in self.robots]
        if len(set(prefixes)) < len(prefixes):
            raise ValueError(f"scene: the robots' prefixes {prefixes} are not all different")
        if len({placed.robot.joints for placed in self.robots}) > 1:
            raise ValueError("scene: robots of different joints can't be rows of one simulation")

    @property
    def robot(self) -> RobotSpec:
        return self.robots[0].robot

    @cached_property
    def model(self) -> Any:
        """MuJoCo's, compiled; the motors hold joint targets at each robot's own gains."""
        from motoric.envs.compose import compose

        scene: Any = self  # type checkers know this module by two names
        return compose(scene)
