"""Types, defaults and meaning of every configuration key.

The groups `policy` and `viewer` live here; `env`, `robot` and `experiment` choices are the YAML
files beside it, checked against `Env` and `Robot`. A key's comment is its line in `--help`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


def doc(default: Any, text: str) -> Any:
    """A field with a default and a line for `--help`."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class Policy:
    """What all algorithms share."""

    name: str = MISSING
    net_arch: list[int] = doc([256, 256], "hidden layers of actor and critic")
    gamma: float = doc(0.99, "discount per step")
    batch_size: int = doc(256, "transitions per gradient step")
    normalize_observation: bool = doc(False, "running mean and deviation of observations")
    normalize_reward: bool = doc(False, "divide rewards by the deviation of the return")


@dataclass
class PPO(Policy):
    """Proximal policy optimisation (stable-baselines3)."""

    name: str = "ppo"
    net_arch: list[int] = doc([64, 64], "hidden layers of actor and critic")
    batch_size: int = doc(64, "transitions per gradient step")
    learning_rate: float = doc(3e-4, "Adam's step size at the start")
    learning_rate_end: float | None = doc(None, "step size at the end, linearly; null: constant")
    n_steps: int = doc(2048, "steps per environment between updates")
    n_epochs: int = doc(10, "passes over each batch of experience")
    gae_lambda: float = doc(0.95, "of the advantage estimate")
    clip_range: float = doc(0.2, "of the probability ratio")
    ent_coef: float = doc(0.0, "entropy bonus")
    vf_coef: float = doc(0.5, "weight of the value loss")
    max_grad_norm: float = doc(0.5, "gradient clipping")
    log_std_init: float = doc(0.0, "initial log deviation of actions")
    activation: str = doc("tanh", "tanh, relu, elu or gelu")


@dataclass
class OffPolicy(Policy):
    """What DSAC-T, SAC and TD3 share."""

    buffer_size: int = doc(1_000_000, "transitions kept")
    learning_starts: int = doc(10_000, "environment steps before the first update")
    tau: float = doc(0.005, "Polyak factor of the target networks")
    train_freq: int = doc(1, "steps (of all environments together: times num_envs) per update call")
    gradient_steps: int = doc(1, "updates per call; -1: one per collected transition")
    n_steps: int = doc(1, "length of the return before bootstrapping")


@dataclass
class DSACT(OffPolicy):
    """Distributional soft actor-critic with three refinements, at one update per step."""

    name: str = "dsac_t"
    net_arch: list[int] = doc([256, 256, 256], "hidden layers of actor and critics")
    learning_rate: float = doc(3e-4, "of the critics, and of the actor unless given")
    actor_learning_rate: float | None = doc(None, "of the actor")
    alpha_learning_rate: float = doc(3e-4, "of log alpha")
    warmup: str = doc("policy", "act by the initial 'policy' or 'uniform' until learning starts")
    tau_b: float = doc(0.005, "factor of the running mean of sigma")
    reward_scale: float = doc(1.0, "multiplies rewards, once")
    log_alpha_init: float = doc(0.0, "initial log temperature (authors: 1.0)")
    target_entropy: float | None = doc(None, "nat in entropy_unit; null: minus action dimensions")
    entropy_unit: str = doc("env", "'env' (authors) or 'normalized' to [-1, 1]")
    policy_delay: int = doc(2, "updates per step of actor, temperature and targets")
    critic_loss: str = doc("gaussian", "'gaussian' (paper) or 'huber' (authors' later code)")
    xi: float = doc(3.0, "clipping range of the return target, in running sigmas")
    eps: float = doc(0.1, "added to denominators of the critic gradients")
    z_clip: float = doc(3.0, "limit of the normal draw in the return target")
    huber_delta: float = doc(50.0, "of critic_loss=huber")
    rho_range: list[float] = doc([0.1, 10.0], "of critic_loss=huber")
    expected_value_target: bool = doc(True, "refinement 1")
    twin_critics: bool = doc(True, "refinement 2")
    variance_adjustment: bool = doc(True, "refinement 3")
    td_bound: float = doc(1.0, "clipping range without refinement 3")


@dataclass
class SAC(OffPolicy):
    """Soft actor-critic (stable-baselines3)."""

    name: str = "sac"
    learning_rate: float = doc(3e-4, "Adam's step size")
    ent_coef: str = doc("auto", "entropy weight: 'auto' or a number")
    target_entropy: str = doc("auto", "'auto' or a number")
    target_update_interval: int = doc(1, "updates per target update")


@dataclass
class TD3(OffPolicy):
    """Twin delayed DDPG (stable-baselines3), with Gaussian exploration noise."""

    name: str = "td3"
    net_arch: list[int] = doc([400, 300], "hidden layers of actor and critics")
    learning_rate: float = doc(1e-3, "Adam's step size")
    policy_delay: int = doc(2, "critic updates per actor update")
    target_policy_noise: float = doc(0.2, "smoothing of target actions")
    target_noise_clip: float = doc(0.5, "limit of that noise")
    exploration_noise: float = doc(0.1, "deviation of the noise on actions in [-1, 1]")


@dataclass
class Env:
    """What to train on. Gymnasium's environments have an `id`, our tasks a `task`."""

    name: str = MISSING
    id: str | None = doc(None, "Gymnasium id")
    task: str | None = doc(None, "one of our batched tasks")
    num_envs: int = doc(1, "environments stepped together")
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "arguments of the task or of gymnasium.make"}
    )


@dataclass
class Robot:
    """The robot to deploy on."""

    name: str = MISSING
    driver: str = doc(MISSING, "a key of `hardware/drivers.py`")
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "arguments of the driver"}
    )


@dataclass
class Viewer:
    """How to look at a robot: web, native, video or none."""

    name: str = MISSING


@dataclass
class Web(Viewer):
    """A page for the browser."""

    name: str = "web"
    host: str = doc("127.0.0.1", "address the page listens on")
    port: int = doc(8080, "of the page")


@dataclass
class Native(Viewer):
    """MuJoCo's own window."""

    name: str = "native"


@dataclass
class Video(Viewer):
    """An MP4, without a screen."""

    name: str = "video"
    out: str | None = doc(None, "file to write; null: RUN/videos/..., or beside the log")
    width: int = doc(640, "pixels, even")
    height: int = doc(480, "pixels, even")
    seconds: float = doc(10.0, "length, s")


@dataclass
class NoViewer(Viewer):
    """Numbers only."""

    name: str = "none"


@dataclass
class Train:
    """Train a policy."""

    defaults: list[Any] = field(
        default_factory=lambda: [
            {"policy": "ppo"},
            {"env": "go2_velocity"},
            "_self_",
            {"experiment": None},  # last: an experiment's values are above all defaults
        ]
    )
    policy: Any = MISSING
    env: Any = MISSING
    id: str | None = doc(None, "Gymnasium id, for env=gym")
    seed: int = doc(0, "of everything random")
    total_steps: int = doc(1_000_000, "environment steps, all environments together")
    device: str = doc("auto", "auto, cpu or cuda")
    torch_threads: int = doc(0, "cores for learning; 0: torch's choice")
    checkpoint_every: int = doc(250_000, "steps between checkpoints")
    eval_every: int = doc(250_000, "steps between evaluations, which choose the best bundle")
    eval_episodes: int = doc(10, "episodes per evaluation")
    log_every: int = doc(10_000, "steps between rows of metrics.csv, at least")
    runs: str = doc("runs", "where run folders go")
    run: str | None = doc(None, "the run folder; null: runs/<env>_<policy>_seed<seed>_<time>")
    resume: str | None = doc(None, "run folder to go on with; keeps its configuration")
    progress: bool = doc(True, "show a progress bar")


@dataclass
class Evaluate:
    """Evaluate a trained policy from its bundle."""

    defaults: list[Any] = field(default_factory=lambda: [{"viewer": "none"}, "_self_"])
    viewer: Any = MISSING
    run: str = doc(MISSING, "run folder")
    bundle: str = doc("best", "best or last")
    episodes: int = doc(20, "episodes with unseen seeds")
    seed: int = doc(0, "of the first episode, counted from those never used in training")
    command: list[float] | None = doc(None, "hold this command: [forward, left, turn] m/s, rad/s")
    seconds: float | None = doc(None, "length of an episode; null: the task's own")


@dataclass
class Export:
    """Write the newest checkpoint's policy as a bundle (ONNX + JSON)."""

    run: str = doc(MISSING, "run folder")
    out: str | None = doc(None, "bundle folder; null: RUN/bundle/last")


@dataclass
class Deploy:
    """Run a trained policy on a robot, through the safety supervisor."""

    defaults: list[Any] = field(default_factory=lambda: [{"robot": "sim_go2"}, "_self_"])
    robot: Any = MISSING
    run: str = doc(MISSING, "run folder")
    bundle: str = doc("best", "best or last")
    duration: float = doc(10.0, "s")
    command: list[float] = doc([0.5, 0.0, 0.0], "[forward, left, turn], m/s, rad/s")


@dataclass
class Replay:
    """Show a log of a deployment."""

    defaults: list[Any] = field(default_factory=lambda: [{"viewer": "web"}, "_self_"])
    viewer: Any = MISSING
    log: str = doc(MISSING, "MCAP file")


POLICIES: dict[str, type[Policy]] = {"dsac_t": DSACT, "ppo": PPO, "sac": SAC, "td3": TD3}
VIEWERS: dict[str, type[Viewer]] = {
    "web": Web,
    "native": Native,
    "video": Video,
    "none": NoViewer,
}
COMMANDS: dict[str, type] = {
    "train": Train,
    "evaluate": Evaluate,
    "export": Export,
    "deploy": Deploy,
    "replay": Replay,
}
CHOICES: dict[str, tuple[str, ...]] = {
    "bundle": ("best", "last"),
    "activation": ("tanh", "relu", "elu", "gelu"),
    "warmup": ("policy", "uniform"),
    "entropy_unit": ("env", "normalized"),
    "critic_loss": ("gaussian", "huber"),
}
AT_LEAST: dict[str, float] = {
    "total_steps": 1,
    "num_envs": 1,
    "episodes": 1,
    "eval_episodes": 1,
    "checkpoint_every": 1,
    "eval_every": 1,
    "log_every": 1,
    "torch_threads": 0,
    "batch_size": 1,
    "buffer_size": 1,
    "n_epochs": 1,
    "n_steps": 1,
    "learning_rate": 0,
    "seed": 0,
    "port": 1,
    "width": 2,
    "height": 2,
}
AT_MOST: dict[str, float] = {"gamma": 1, "gae_lambda": 1, "tau": 1, "tau_b": 1, "port": 65535}


def check(config: Any, prefix: str = "") -> None:
    """Raise ValueError, naming the key, for a value out of range."""
    for item in dataclasses.fields(config):
        key, value = prefix + item.name, getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            check(value, f"{key}.")
        elif item.name in CHOICES and value not in CHOICES[item.name]:
            raise ValueError(f"{key}: {value!r}, expected one of {', '.join(CHOICES[item.name])}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if item.name in AT_LEAST and not value >= AT_LEAST[item.name]:
                raise ValueError(f"{key}: {value}, expected at least {AT_LEAST[item.name]}")
            if item.name in AT_MOST and not value <= AT_MOST[item.name]:
                raise ValueError(f"{key}: {value}, expected at most {AT_MOST[item.name]}")
            if item.name in ("duration", "seconds") and not 0 < value < float("inf"):
                raise ValueError(f"{key}: {value}, expected a positive number of seconds")
        elif item.name == "command" and isinstance(value, list) and len(value) != 3:
            raise ValueError(f"{key}: {value}, expected [forward, left, turn]")


def register() -> None:
    """Make the types known to Hydra."""
    store = ConfigStore.instance()
    for name, command in COMMANDS.items():
        store.store(name=name, node=command)
    for name, policy in POLICIES.items():
        store.store(group="policy", name=name, node=policy)
    for name, viewer in VIEWERS.items():
        store.store(group="viewer", name=name, node=viewer)
    store.store(group="env", name="schema", node=Env)
    store.store(group="robot", name="schema", node=Robot)
