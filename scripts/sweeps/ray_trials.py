"""The trials of a sweep on a Ray cluster; their folders grow on the machine that launched them.

A node that sees the sweep's folder (one machine, or a shared file system) trains in it. Any other
trains in a folder of its own, and what changes there is sent over every few seconds, so that curves
can be followed and a trial whose node is lost can be resumed from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from motoric.scripts.config import UserError
from omegaconf import DictConfig, open_dict

MARK = ".launched-here"  # a file in the sweep's folder: who reads its token shares the folder
EVERY = 5.0  # s between looks for changed files
PIECE = 16 << 20  # bytes sent at a time
STOPPING = 120.0  # s that stopped trials have to save a checkpoint


def connect(address: str | None, num_cpus: int, num_gpus: float) -> str:
    """Join the cluster at an address (None: start Ray on this machine); says what it is.

    Raises UserError where there is none, or no node has what a trial needs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    key = f"hydra.launcher.address: {address!r}"
    if address is not None and "://" in address:
        raise UserError(f"{key}, expected host:port or auto, on a machine that is one of its nodes")
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{key}: can't join a Ray cluster there: {reason}") from None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    check_fit(nodes, num_cpus, num_gpus)
    cpus = sum(node.get("CPU", 0) for node in nodes)
    return f"Ray: {len(nodes)} node{'s'[: len(nodes) > 1]}, {cpus:g} CPUs, {num_cpus} per trial"


def check_fit(nodes: list[dict[str, float]], num_cpus: int, num_gpus: float) -> None:
    """Raise UserError unless one of the nodes, given by their resources, can hold a trial."""
    needs = {"CPU": ("num_cpus", num_cpus), "GPU": ("num_gpus", num_gpus)}
    for resource, (name, wanted) in needs.items():
        most = max(node.get(resource, 0) for node in nodes)
        if wanted > most:
            raise UserError(
                f"hydra.launcher.{name}: {wanted}, but the largest node has {most:g} {resource}s"
            )
    both = [node for node in nodes if node.get("GPU", 0) >= num_gpus]
    most = max(node.get("CPU", 0) for node in both)
    if num_cpus > most:
        raise UserError(
            f"hydra.launcher.num_cpus: {num_cpus}, but the largest node with num_gpus={num_gpus:g} "
            f"has {most:g} CPUs"
        )


def run(
    context: Any, function: Callable, jobs: list[DictConfig], *, num_cpus: int, num_gpus: float,
    scratch: str | None, **_: Any,
) -> None:  # fmt: skip
    """Run all jobs; each leaves its folder, with a result.json that tells how it ended.

    Ctrl-C lets every running trial save a checkpoint first.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = Path(jobs[0].hydra.sweep.dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    token = os.urandom(16).hex()
    (folder / MARK).write_text(token)
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    inbox = ray.remote(num_cpus=0, scheduling_strategy=here)(Inbox).remote(str(folder))
    # A trial that died is not begun again: it would start from nothing, and maybe die again.
    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0)(trial)
    state = Singleton.get_state()
    running: dict[Any, DictConfig] = {
        task.remote(context, function, job, state, inbox, str(folder), token, scratch): job
        for job in jobs
    }
    try:
        while running:
            ended: list[Any] = ray.wait(list(running), timeout=1.0)[0]
            for one in ended:
                _finish(one, running.pop(one), inbox, folder)
    except KeyboardInterrupt:
        print("stopping: the trials save their checkpoints", flush=True)
        for one in running:
            ray.cancel(one)
        ended = ray.wait(list(running), num_returns=len(running), timeout=STOPPING)[0]
        for one in ended:
            _finish(one, running.pop(one), inbox, folder)
        raise
    finally:
        (folder / MARK).unlink(missing_ok=True)


def _finish(one: Any, job: DictConfig, inbox: Any, folder: Path) -> None:
    """Say how a trial ended; a result.json for one that could not write its own."""
    import ray
    from ray.exceptions import RayError, TaskCancelledError

    number = job.hydra.job.num
    path = folder / f"job_{number}" / "result.json"
    error = None
    try:
        ray.get(one)
    except TaskCancelledError:
        error = "stopped before it began"
    except RayError as failure:
        lines = [line.strip() for line in str(failure).split("\n") if line.strip()]
        error = f"{type(failure).__name__}: {lines[0] if lines else 'no reason given'}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"job": number, "overrides": list(job.hydra.overrides.task)}
        path.write_text(json.dumps(told | {"error": error or "no result"}, indent=1))
    result = json.loads(path.read_text())
    how = f"failed: {result['error']}" if "error" in result else "finished"
    where = ray.get(inbox.where.remote(number))
    print(f"job_{number}{where and f' on {where}'}: {how}", flush=True)


# ---------------------------------------------------------------------------------------------
# On the nodes
# ---------------------------------------------------------------------------------------------


def trial(
    context: Any, function: Callable, job: DictConfig, state: Any, inbox: Any, folder: str,
    token: str, scratch: str | None,
) -> None:  # fmt: skip
    """Run one job on this node."""
    import ray

    setup_globals()
    Singleton.set_state(state)
    node = ray.get_runtime_context().get_node_id()
    where = f"{socket.gethostname()} (node {node[:8]})"
    ray.get(inbox.started.remote(job.hydra.job.num, where))
    with _workplace(Path(folder), token, scratch, inbox) as place:
        with open_dict(job):
            job.hydra.sweep.dir = str(place)
        HydraConfig.instance().set_config(job)
        output = place / f"job_{job.hydra.job.num}" / "output.txt"
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("w") as file, contextlib.redirect_stdout(file):
            run_job(function, job, "hydra.sweep.dir", "hydra.sweep.subdir", context)


@contextlib.contextmanager
def _workplace(folder: Path, token: str, scratch: str | None, inbox: Any) -> Iterator[Path]:
    """Where a trial writes: the sweep's folder, or one that is mirrored to it."""
    with contextlib.suppress(OSError):
        if scratch is None and (folder / MARK).read_text() == token:
            yield folder
            return
    if scratch is not None:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="motoric-", dir=scratch) as name:
        place, sent, over = Path(name).resolve(), {}, threading.Event()

        def follow() -> None:
            while not over.wait(EVERY):
                mirror(place, inbox, sent)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield place
        finally:
            over.set()
            thread.join()
            mirror(place, inbox, sent)


def mirror(folder: Path, inbox: Any, sent: dict[str, tuple[int, int]]) -> None:
    """Send what changed in a folder since `sent`, {name: (time, size)}, which is brought up to
    date. Names with a leading dot are work in progress and stay."""
    import ray

    found = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            now = os.fstat(file.fileno())
            found.add(str(name))
            if sent.get(str(name)) == (now.st_mtime_ns, now.st_size):
                continue
            offset = 0
            while (data := file.read(PIECE)) or offset == 0:
                ray.get(inbox.write.remote(str(name), offset, data))
                offset += len(data)
                if not data:
                    break
            sent[str(name)] = (now.st_mtime_ns, now.st_size)
    for name in set(sent) - found:
        ray.get(inbox.remove.remote(name))
        del sent[name]


class Inbox:
    """An actor on the launching machine: knows which node has which trial, and puts the files
    that nodes send into the sweep's folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.nodes: dict[int, str] = {}

    def started(self, number: int, where: str) -> None:
        self.nodes[number] = where

    def where(self, number: int) -> str:
        return self.nodes.get(number, "")

    def write(self, name: str, offset: int, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)

    def remove(self, name: str) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what is left empty goes too
            path.parent.rmdir()
