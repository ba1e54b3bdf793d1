"""A user's own model file, MJCF or URDF, as an MjSpec that can be simulated.

What a URDF leaves out is added: a floor, a free joint under a floating base, names for the shapes
of feet. Meshes are looked for where `package://` and relative names may mean; only the shapes that
collide are taken.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import mujoco

LARGEST = 16 * 1024 * 1024  # bytes of a model's file
MESHES = (".obj", ".stl", ".msh")
LEAST_MASS, LEAST_INERTIA = 1e-4, 1e-7  # kg, kg m^2; links that are frames only have none


def parse(path: Path, model: str) -> ElementTree.Element:
    """The file's XML. Raises ValueError in one line that begins with `model`."""
    try:
        if not path.is_file():
            raise ValueError(f"model: {model} is not a file")
        if path.stat().st_size > LARGEST:
            raise ValueError(f"model: {model} is larger than {LARGEST // 1024**2} MiB")
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise ValueError(f"model: {model}: {error.strerror}") from None
    except ElementTree.ParseError as error:
        raise ValueError(f"model: {model} is no XML: {error}") from None
    if root.tag not in ("robot", "mujoco"):
        raise ValueError(f"model: {model} begins with <{root.tag}>, expected a URDF or MJCF")
    return root


def read(path: Path, model: str, floating: bool | None = None) -> mujoco.MjSpec:
    """The model of a file. floating: whether its base shall be; None: as the file has it.

    Raises ValueError in one line that begins with `model`.
    """
    root = parse(path, model)
    try:
        if root.tag == "mujoco":
            spec = mujoco.MjSpec.from_file(str(path))
        else:
            spec = mujoco.MjSpec.from_string(_simulable(root, path, model))
    except ValueError as error:
        text = str(error).split("\n")[0]
        raise ValueError(
            text if text.startswith("model:") else f"model: {model} can't be loaded: {text}"
        ) from None
    free = [j for j in spec.joints if j.type == mujoco.mjtJoint.mjJNT_FREE]
    if floating and not free:
        spec.worldbody.first_body().add_freejoint(name="root")
    if floating is False and free:
        raise ValueError(f"fixed: true, but {model} has a floating base")
    if not any(g.type == mujoco.mjtGeom.mjGEOM_PLANE for g in spec.geoms):
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05],
            rgba=[0.82, 0.83, 0.85, 1],
        )  # fmt: skip
        spec.worldbody.add_light(pos=[0, 0, 4], dir=[0, 0, -1])
    return spec


def _simulable(root: ElementTree.Element, path: Path, model: str) -> str:
    """A URDF that MuJoCo loads: meshes by absolute paths, links that are frames kept."""
    for link in root.iter("link"):
        for visual in link.findall("visual"):
            link.remove(visual)
    for mesh in root.iter("mesh"):
        name = mesh.get("filename", "")
        found = _mesh(name, path.parent)
        if found is None:
            raise ValueError(f"model: {model}: mesh {name} is not there")
        if found.suffix.lower() not in MESHES:
            raise ValueError(f"model: {model}: mesh {name}, expected one of {', '.join(MESHES)}")
        mesh.set("filename", str(found))
    extension = root.find("mujoco")
    if extension is None:
        extension = ElementTree.SubElement(root, "mujoco")
    compiler = extension.find("compiler")
    if compiler is None:
        compiler = ElementTree.SubElement(extension, "compiler")
    for key, value in (
        ("strippath", "false"), ("fusestatic", "false"), ("balanceinertia", "true"),
        ("boundmass", str(LEAST_MASS)), ("boundinertia", str(LEAST_INERTIA)),
    ):  # fmt: skip
        compiler.set(key, value)
    return ElementTree.tostring(root, encoding="unicode")


def _mesh(name: str, folder: Path) -> Path | None:
    """`package://NAME/rest` is looked for in the folders above, with NAME and without."""
    _, package, rest = name.rpartition("package://")
    tails = [rest, rest.partition("/")[2]] if package else [name]
    for base in (folder, *folder.resolve().parents):
        for tail in tails:
            if tail and (base / tail).is_file():
                return (base / tail).resolve()
        if not package:
            return None
    return None


def add_feet(spec: mujoco.MjSpec, feet: tuple[str, ...], model: str) -> None:
    """What is measured of each foot: a geom of its name, a site, and sensors of touch and speed.

    A foot may be named by its link (body) too. What is there already stays. Raises ValueError.
    """
    sensors = {sensor.name for sensor in spec.sensors}
    for foot in feet:
        geom, site = spec.geom(foot), spec.site(foot)
        if geom is None:
            body = spec.body(foot)
            geom = None if body is None else body.first_geom()
            if geom is None:
                raise ValueError(f"feet: {foot!r}, {model} has no geom or link of this name")
            geom.name = foot
        if site is None:
            radius = max(float(geom.size[0]), 0.005) * 1.1
            geom.parent.add_site(name=foot, pos=geom.pos, size=[radius, radius, radius])
        for kind, name in (("TOUCH", f"{foot}_touch"), ("FRAMELINVEL", f"{foot}_velocity")):
            if name not in sensors:
                spec.add_sensor(
                    name=name, type=getattr(mujoco.mjtSensor, f"mjSENS_{kind}"),
                    objtype=mujoco.mjtObj.mjOBJ_SITE, objname=foot,
                )  # fmt: skip
