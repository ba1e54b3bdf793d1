"""Print constraints.txt: the versions installed here of everything motoric's extras pull in.

To move a pin: `.venv/bin/pip install NAME==VERSION`, run the tests, then `make lock`.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HEADER = """\
# Versions the tests ran with, of every package motoric installs, transitively (make lock).
# torch has no +cpu or +cu suffix here: .ci/install picks the build that fits the machine.
"""
BUILD = ("pip", "setuptools", "wheel")  # what turns pyproject.toml and sdists into installs


def closure(requirements: list[str]) -> dict[str, str]:
    """Installed `{name: version}` of the requirements and of all they require in turn."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(Requirement(text), "") for text in requirements]
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            dist = distribution(requirement.name)
        except PackageNotFoundError:
            raise SystemExit(f"{requirement} is not installed: run make test first") from None
        found[name] = Version(dist.version).public
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                queue += [(Requirement(text), wanted) for text in dist.requires or []]
    return found


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *(text for extra in extras for text in extra), *BUILD]
    print(HEADER, end="")
    for name, version in sorted(closure(declared).items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
