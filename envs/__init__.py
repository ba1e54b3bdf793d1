"""Tasks, the simulations they run on, and their registration with Gymnasium.

Each task is `gymnasium.make("motoric/NAME")`, and many of it `gymnasium.make_vec`.
"""

from gymnasium.envs.registration import register
from motoric.hardware.registry import Table

for _name in Table("task", "tasks", package="motoric.envs.tasks").names:
    register(
        id=f"motoric/{_name}",
        entry_point="motoric.envs.vector:TaskEnv",
        vector_entry_point="motoric.envs.vector:BatchedVectorEnv",
        kwargs={"task": _name},
    )
