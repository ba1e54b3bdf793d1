"""`hydra/launcher=ray`: what Hydra asks of a launcher. Hydra only takes one from `hydra_plugins`,
which is why this is installed as `hydra_plugins.motoric_ray`; the work is in `ray_trials.py`.

Our own because hydra-ray-launcher 1.2.2 requires cloudpickle<3 and boto3, leaves the run folders on
the nodes, and gives up all trials when the worker of one dies.
"""

# No `from __future__ import annotations`: Hydra runs this before it is in sys.modules, where a
# dataclass looks for the names in such annotations.
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict


@dataclass
class RayConfig:
    """Keys under `hydra.launcher`."""

    _target_: str = "hydra_plugins.motoric_ray.RayLauncher"
    address: str | None = None  # host:port or auto; null: Ray on this machine alone
    num_cpus: int = 1  # cores of each trial
    num_gpus: float = 0.0  # of each trial
    scratch: str | None = None  # folder on the nodes to train in; null: here if it is shared


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConfig, provider="motoric")


class RayLauncher(Launcher):
    """Runs the jobs of a sweep as tasks of the Ray cluster this process is connected to."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from motoric.scripts.sweeps import ray_trials

        jobs = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            job = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(job):
                job.hydra.job.id = job.hydra.job.num = number
            jobs.append(job)
        ray_trials.run(self.context, self.function, jobs, **self.settings)
        done = JobReturn()
        done.status, done.return_value = JobStatus.COMPLETED, None
        return [done] * len(jobs)
