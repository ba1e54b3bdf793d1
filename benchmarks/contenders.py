"""What is compared, each in a process of its own that measures when it is asked to."""

from __future__ import annotations

import contextlib
import os
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def make_venv(folder: Path, requirements: str, over: str | None = None) -> None:
    """Make an environment with what a file of this folder lists, unless it is there and whole.

    over: a folder of packages that it has too.
    """
    whole = folder / "made"
    if whole.exists():
        return
    venv.create(folder, with_pip=True, clear=True)
    if over is not None:
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "base.pth").write_text(f"import site; site.addsitedir({over!r})\n")
    file = Path(__file__).with_name(requirements)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "-r", file]
    if subprocess.run(pip).returncode:
        raise SystemExit(f"benchmarks/{requirements} can't be installed: see above")
    whole.touch()


class Contender:
    """A process that prints `ready`, and then a line of numbers for every line it reads."""

    def __init__(
        self, name: str, command: list[Any], cores: list[int], environment: dict[str, str]
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{self.name} did not start: {' '.join(self.command)}")

    def ask(self, question: object) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{question}\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if not answer:
            raise SystemExit(f"{self.name} died: {' '.join(self.command)}")
        return [float(value) for value in answer]

    def end(self) -> None:
        """It ends when nothing more can come; after 10 s it is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(
    commands: dict[str, list[Any]], threads: int, environment: dict[str, str]
) -> Iterator[dict[str, Contender]]:
    """One process per command, all ready, on the first `threads` cores."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    found: dict[str, Contender] = {}
    try:
        for name, command in commands.items():
            found[name] = Contender(name, command, cores, environment)
        for contender in found.values():
            contender.wait_until_ready()
        yield found
    finally:
        for contender in found.values():
            contender.end()
