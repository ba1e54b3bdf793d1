"""Tasks, the simulations they run on, and their registration with Gymnasium."""

from gymnasium.envs.registration import register

register(
    id="motoric/Go2Velocity-v0",
    entry_point="motoric.envs.vector:TaskEnv",
    vector_entry_point="motoric.envs.vector:BatchedVectorEnv",
    kwargs={"task": "go2_velocity"},
)

register(
    id="motoric/Go2VelocityBullet-v0",
    entry_point="motoric.envs.vector:TaskEnv",
    vector_entry_point="motoric.envs.vector:BatchedVectorEnv",
    kwargs={"task": "go2_velocity", "engine": "pybullet"},
)

for _name in ("HalfCheetah-v5", "Ant-v5"):
    register(
        id=f"motoric/{_name}",
        entry_point="motoric.envs.vector:TaskEnv",
        vector_entry_point="motoric.envs.vector:BatchedVectorEnv",
        kwargs={"task": _name},
    )
