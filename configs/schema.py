"""Types, defaults and meaning of every configuration key.

The groups `policy` and `viewer` live here; `env`, `robot` and `experiment` choices are the YAML
files beside it, checked against `Env` and `Robot`. A key's comment is its line in `--help`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass(frozen=True)
class Range:
    """What a number (or each number of a list) may be; None: no bound."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def problem(self, value: float) -> str | None:
        if not math.isfinite(value):
            return "expected a finite number"
        if self.least is not None and value < self.least:
            return f"expected at least {self.least}"
        if self.above is not None and value <= self.above:
            return f"expected more than {self.above}"
        if self.most is not None and value > self.most:
            return f"expected at most {self.most}"
        return None


SHARE = Range(least=0, most=1)
FACTOR = Range(above=0, most=1)
POSITIVE = Range(above=0)
COUNT = Range(least=1)
NOT_NEGATIVE = Range(least=0)
BUNDLES = ("best", "last")
ENGINES = (None, "mujoco", "pybullet")
REALTIME = ("auto", "on", "off")


def doc(default: Any, text: str, allowed: Range | tuple[str | None, ...] | None = None) -> Any:
    """A field with a default, a line for `--help`, and what its value may be."""
    metadata = {"help": text, "allowed": allowed}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Policy:
    """What all algorithms share."""

    name: str = MISSING
    net_arch: list[int] = doc([256, 256], "hidden layers of actor and critic", COUNT)
    gamma: float = doc(0.99, "discount per step", SHARE)
    batch_size: int = doc(256, "transitions per gradient step", COUNT)
    normalize_observation: bool = doc(False, "running mean and deviation of observations")
    normalize_reward: bool = doc(False, "divide rewards by the deviation of the return")


@dataclass
class PPO(Policy):
    """Proximal policy optimisation (stable-baselines3)."""

    name: str = "ppo"
    net_arch: list[int] = doc([64, 64], "hidden layers of actor and critic", COUNT)
    batch_size: int = doc(64, "transitions per gradient step", Range(least=2))
    learning_rate: float = doc(3e-4, "Adam's step size at the start", POSITIVE)
    learning_rate_end: float | None = doc(
        None, "step size at the end, linearly; null: constant", NOT_NEGATIVE
    )
    n_steps: int | None = doc(
        None,
        "steps of each environment between updates; null: 2048 of all together, at least 16 each",
        Range(least=2),
    )
    n_epochs: int = doc(10, "passes over each batch of experience", COUNT)
    gae_lambda: float = doc(0.95, "of the advantage estimate", SHARE)
    clip_range: float = doc(0.2, "of the probability ratio", POSITIVE)
    ent_coef: float = doc(0.0, "entropy bonus", NOT_NEGATIVE)
    vf_coef: float = doc(0.5, "weight of the value loss", NOT_NEGATIVE)
    max_grad_norm: float = doc(0.5, "gradient clipping", POSITIVE)
    log_std_init: float = doc(0.0, "initial log deviation of actions")
    activation: str = doc("tanh", "tanh, relu, elu or gelu", ("tanh", "relu", "elu", "gelu"))


@dataclass
class OffPolicy(Policy):
    """What DSAC-T, SAC and TD3 share."""

    buffer_size: int = doc(1_000_000, "transitions kept", COUNT)
    learning_starts: int = doc(10_000, "environment steps before the first update", NOT_NEGATIVE)
    tau: float = doc(0.005, "Polyak factor of the target networks", FACTOR)
    train_freq: int = doc(
        1, "environment steps, of all environments together, per update call", COUNT
    )
    gradient_steps: int = doc(
        1, "updates per call; -1: one per collected transition", Range(least=-1)
    )
    n_steps: int = doc(1, "length of the return before bootstrapping", COUNT)
    replay: str = doc(
        "auto",
        "transitions in the memory of the 'host' or of the learning 'device'; 'auto': of a GPU",
        ("auto", "host", "device"),
    )


@dataclass
class DSACT(OffPolicy):
    """Distributional soft actor-critic with three refinements, at one update per step."""

    name: str = "dsac_t"
    net_arch: list[int] = doc([256, 256, 256], "hidden layers of actor and critics", COUNT)
    learning_rate: float = doc(3e-4, "of the critics, and of the actor unless given", POSITIVE)
    actor_learning_rate: float | None = doc(None, "of the actor", POSITIVE)
    alpha_learning_rate: float = doc(3e-4, "of log alpha", POSITIVE)
    warmup: str = doc(
        "policy",
        "act by the initial 'policy' or 'uniform' until learning starts",
        ("policy", "uniform"),
    )
    tau_b: float = doc(0.005, "factor of the running mean of sigma", FACTOR)
    reward_scale: float = doc(1.0, "multiplies rewards, once", POSITIVE)
    log_alpha_init: float = doc(0.0, "initial log temperature (authors: 1.0)")
    target_entropy: float | None = doc(None, "nat in entropy_unit; null: minus action dimensions")
    entropy_unit: str = doc(
        "env", "'env' (authors) or 'normalized' to [-1, 1]", ("env", "normalized")
    )
    policy_delay: int = doc(2, "updates per step of actor, temperature and targets", COUNT)
    critic_loss: str = doc(
        "gaussian", "'gaussian' (paper) or 'huber' (authors' later code)", ("gaussian", "huber")
    )
    xi: float = doc(3.0, "clipping range of the return target, in running sigmas", POSITIVE)
    eps: float = doc(0.1, "added to denominators of the critic gradients", NOT_NEGATIVE)
    z_clip: float = doc(3.0, "limit of the normal draw in the return target", POSITIVE)
    huber_delta: float = doc(50.0, "of critic_loss=huber", POSITIVE)
    rho_range: list[float] = doc([0.1, 10.0], "of critic_loss=huber", POSITIVE)
    expected_value_target: bool = doc(True, "refinement 1")
    twin_critics: bool = doc(True, "refinement 2")
    variance_adjustment: bool = doc(True, "refinement 3")
    td_bound: float = doc(1.0, "clipping range without refinement 3", POSITIVE)
    compile: bool = doc(False, "compile the gradients: C++ compiler on a CPU, CUDA graphs on a GPU")


@dataclass
class SAC(OffPolicy):
    """Soft actor-critic (stable-baselines3)."""

    name: str = "sac"
    learning_rate: float = doc(3e-4, "Adam's step size", POSITIVE)
    ent_coef: str = doc("auto", "entropy weight: 'auto' or a number")
    target_entropy: str = doc("auto", "'auto' or a number")
    target_update_interval: int = doc(1, "updates per target update", COUNT)


@dataclass
class TD3(OffPolicy):
    """Twin delayed DDPG (stable-baselines3), with Gaussian exploration noise."""

    name: str = "td3"
    net_arch: list[int] = doc([400, 300], "hidden layers of actor and critics", COUNT)
    learning_rate: float = doc(1e-3, "Adam's step size", POSITIVE)
    policy_delay: int = doc(2, "critic updates per actor update", COUNT)
    target_policy_noise: float = doc(0.2, "smoothing of target actions", NOT_NEGATIVE)
    target_noise_clip: float = doc(0.5, "limit of that noise", NOT_NEGATIVE)
    exploration_noise: float = doc(
        0.1, "deviation of the noise on actions in [-1, 1]", NOT_NEGATIVE
    )


@dataclass
class Env:
    """What to train on. Gymnasium's environments have an `id`, our tasks a `task`."""

    name: str = MISSING
    id: str | None = doc(None, "Gymnasium id")
    task: str | None = doc(None, "one of our batched tasks")
    num_envs: int = doc(1, "environments stepped together", COUNT)
    num_threads: int = doc(0, "cores for our batched simulation; 0: all", NOT_NEGATIVE)
    engine: str | None = doc(None, "physics of a task: mujoco or pybullet; null: mujoco", ENGINES)
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
    port: int = doc(8080, "of the page", Range(least=1, most=65535))


@dataclass
class Native(Viewer):
    """MuJoCo's own window."""

    name: str = "native"


@dataclass
class Video(Viewer):
    """An MP4, without a screen."""

    name: str = "video"
    out: str | None = doc(None, "file to write; null: RUN/videos/..., or beside the log")
    width: int = doc(640, "pixels, even", Range(least=16))
    height: int = doc(480, "pixels, even", Range(least=16))
    seconds: float = doc(10.0, "length, s", POSITIVE)


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
    seed: int = doc(0, "of everything random", NOT_NEGATIVE)
    total_steps: int = doc(1_000_000, "environment steps, all environments together", COUNT)
    device: str = doc("auto", "auto, cpu or cuda")
    torch_threads: int = doc(0, "cores for learning; 0: torch's choice", NOT_NEGATIVE)
    checkpoint_every: int = doc(250_000, "steps between checkpoints", COUNT)
    eval_every: int = doc(250_000, "steps between evaluations, which choose the best bundle", COUNT)
    eval_episodes: int = doc(10, "episodes per evaluation", COUNT)
    log_every: int = doc(10_000, "steps between rows of metrics.csv, at least", COUNT)
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
    bundle: str = doc("best", "best or last", BUNDLES)
    episodes: int = doc(20, "episodes with unseen seeds", COUNT)
    seed: int = doc(
        0, "of the first episode, counted from those never used in training", NOT_NEGATIVE
    )
    command: list[float] | None = doc(None, "hold this command: [forward, left, turn] m/s, rad/s")
    seconds: float | None = doc(None, "length of an episode; null: the task's own", POSITIVE)
    engine: str | None = doc(None, "mujoco or pybullet; null: the one it was trained on", ENGINES)


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
    bundle: str = doc("best", "best or last", BUNDLES)
    interface: str | None = doc(None, "network interface the robot is on, e.g. eth0")
    duration: float = doc(10.0, "s", POSITIVE)
    command: list[float] = doc([0.5, 0.0, 0.0], "[forward, left, turn], m/s, rad/s")
    loop_rate: float | None = doc(
        None, "of the control loop, Hz, a multiple of the policy's; null: the robot's", POSITIVE
    )
    realtime: str = doc(
        "auto", "SCHED_FIFO and locked memory: auto (if permitted), on or off", REALTIME
    )
    dry_run: bool = doc(False, "read, act and supervise, but send nothing to the robot")


@dataclass
class Serve:
    """Put this machine's robot on the network, for `deploy robot=remote_...` elsewhere."""

    defaults: list[Any] = field(default_factory=lambda: [{"robot": "sim_go2"}, "_self_"])
    robot: Any = MISSING
    interface: str | None = doc(None, "network interface the robot is on, e.g. eth0")
    host: str = doc("127.0.0.1", "address to listen on; others than this machine's need a key")
    port: int = doc(7230, "UDP port; 0: any that is free", Range(least=0, most=65535))
    key_file: str | None = doc(None, "file with the key that both ends know")
    realtime: str = doc(
        "auto", "SCHED_FIFO and locked memory: auto (if permitted), on or off", REALTIME
    )


@dataclass
class Check:
    """Watch a robot's joints, base, battery and link with its motors off; nothing is commanded."""

    defaults: list[Any] = field(default_factory=lambda: [{"robot": "sim_go2"}, "_self_"])
    robot: Any = MISSING
    interface: str | None = doc(None, "network interface the robot is on, e.g. eth0")
    duration: float | None = doc(None, "s; null: until Ctrl-C", POSITIVE)


@dataclass
class Calibrate:
    """Record zero and range of every joint of a servo chain, moved by hand with torque off."""

    defaults: list[Any] = field(default_factory=lambda: [{"robot": "x_arm6"}, "_self_"])
    robot: Any = MISSING
    seconds: float | None = doc(None, "length of the recording, s; null: until Enter", POSITIVE)


@dataclass
class Simulate:
    """Serve a simulated robot on the wire of the real one, until Ctrl-C."""

    defaults: list[Any] = field(
        default_factory=lambda: [{"robot": "go2"}, {"viewer": "none"}, "_self_"]
    )
    robot: Any = MISSING
    viewer: Any = MISSING
    interface: str | None = doc(None, "network interface to serve on; null: lo, this machine only")
    port: str | None = doc(
        None, "path at which a servo chain's serial port appears; null: /dev/pts/..."
    )
    lose: float = doc(0.0, "share that is lost on the wire, either way: bytes, or messages", SHARE)
    corrupt: float = doc(0.0, "share that is damaged on the wire: bytes, or messages", SHARE)
    hand: bool = doc(False, "a hand moves a servo chain's joints, one by one, while torque is off")
    record: str | None = doc(None, "MCAP file to write: what the motors did in every time step")


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
    "serve": Serve,
    "check": Check,
    "calibrate": Calibrate,
    "simulate": Simulate,
    "replay": Replay,
}


def check(config: Any, prefix: str = "") -> None:
    """Raise ValueError, naming the key, for a value that is not allowed."""
    for item in dataclasses.fields(config):
        key, value = prefix + item.name, getattr(config, item.name)
        allowed = item.metadata.get("allowed")
        if dataclasses.is_dataclass(value):
            check(value, f"{key}.")
        elif isinstance(allowed, tuple):
            if value not in allowed:
                names = ", ".join("null" if name is None else name for name in allowed)
                raise ValueError(f"{key}: {value!r}, expected one of {names}")
        elif item.name == "rho_range" and (len(value) != 2 or value[0] >= value[1]):
            raise ValueError(f"{key}: {value}, expected [low, high]")
        elif item.name == "command" and value is not None and len(value) != 3:
            raise ValueError(f"{key}: {value}, expected [forward, left, turn]")
        else:
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and not isinstance(number, bool):
                    problem = (allowed or Range()).problem(number)
                    if problem is not None:
                        raise ValueError(f"{key}: {value}, {problem}")


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
