"""The commands: each one's keys, example lines and the function that runs it, in one place.

The doc of a configuration is the command's line of help; its `defaults` name the groups it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from motoric.configs.schema import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, doc
from omegaconf import MISSING

BUNDLES = ("best", "last")
REALTIME = ("auto", "on", "off")
INFERENCE = ("auto", "inline", "thread")


@dataclass(frozen=True)
class Command:
    """`motoric NAME key=value …`.

    config: dataclass of its keys
    run: `module:function` of what it does, called as `function(settings, say)` and returning the
        exit code: 0, 1 where what it was asked for failed; `say` prints a line
    examples: argument lines for `--help`
    first: key of a lone word, e.g. `motoric evaluate runs/DIR`
    paths: keys whose values are paths, taken literally
    many: `module:function` of what it does with `-m`, called as `function(overrides, say)`
    """

    name: str
    config: type
    run: str
    examples: tuple[str, ...] = ("",)
    first: str | None = None
    paths: tuple[str, ...] = ()
    many: str | None = None

    @property
    def help(self) -> str:
        return (self.config.__doc__ or "").strip()

    @property
    def groups(self) -> tuple[str, ...]:
        """Config groups of which one choice is taken, in their order."""
        listed = getattr(self.config(), "defaults", [])
        return tuple(name for entry in listed if isinstance(entry, dict) for name in entry)


def groups(*choices: Any) -> Any:
    """The `defaults` of a command: which choice each group has unless another is made."""
    return field(default_factory=lambda: list(choices))


def on_interface(robot: Any, interface: str | None) -> None:
    """Tell a robot's driver which network interface it is on. Raises ValueError."""
    if interface is not None:
        if "interface" not in robot.options:
            raise ValueError(f"interface: {interface!r}, robot={robot.name} is on none")
        robot.options["interface"] = interface


@dataclass
class Train:
    """Train a policy."""

    defaults: list[Any] = groups(
        {"policy": "ppo"},
        {"env": "go2_velocity"},
        {"dataset": "none"},
        "_self_",
        {"experiment": None},  # last: an experiment's values are above all defaults
    )
    policy: Any = MISSING
    env: Any = MISSING
    dataset: Any = MISSING
    id: str | None = doc(None, "Gymnasium id, for env=gym")
    seed: int = doc(0, "of everything random", NOT_NEGATIVE)
    total_steps: int = doc(
        1_000_000, "environment steps of all environments together, or updates from a data set",
        COUNT,
    )  # fmt: skip
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

    def settle(self) -> None:
        if self.id is not None and self.env.name != "gym":
            raise ValueError(f"id: {self.id!r}, only with env=gym")
        if self.env.id is None and self.env.name == "gym":
            raise ValueError("id: missing, env=gym needs id=<Gymnasium id>, e.g. id=Ant-v5")
        if self.env.id is None and self.dataset.path is None:
            raise ValueError(
                f"env: {self.env.name!r} has nothing to step, expected an environment or "
                "dataset=local dataset.path=FOLDER"
            )
        if self.dataset.path is None and self.dataset.name == "local":
            raise ValueError("dataset.path: missing, dataset=local needs dataset.path=FOLDER")


@dataclass
class Evaluate:
    """Evaluate a trained policy from its bundle."""

    defaults: list[Any] = groups({"viewer": "none"}, "_self_")
    viewer: Any = MISSING
    run: str = doc(MISSING, "run folder")
    bundle: str = doc("best", "best or last", BUNDLES)
    episodes: int = doc(20, "episodes with unseen seeds", COUNT)
    seed: int = doc(
        0, "of the first episode, counted from those never used in training", NOT_NEGATIVE
    )
    goal: Any = doc(None, "hold this goal: its numbers, or {part: value}; null: as the task draws")
    seconds: float | None = doc(None, "length of an episode; null: the task's own", POSITIVE)
    engine: str | None = doc(None, "mujoco or pybullet; null: the one it was trained on")
    cells: int | None = doc(
        None, "also name the goals it does worst at: cells in each number's range", COUNT
    )


@dataclass
class Export:
    """Write the newest checkpoint's policy as a bundle (ONNX + JSON)."""

    run: str = doc(MISSING, "run folder")
    out: str | None = doc(None, "bundle folder; null: RUN/bundle/last")


@dataclass
class Deploy:
    """Run a trained policy on a robot, through the safety supervisor."""

    defaults: list[Any] = groups({"robot": "sim_go2"}, "_self_")
    robot: Any = MISSING
    run: str = doc(MISSING, "run folder")
    bundle: str = doc("best", "best or last", BUNDLES)
    interface: str | None = doc(None, "network interface the robot is on, e.g. eth0")
    duration: float = doc(10.0, "s", POSITIVE)
    goal: Any = doc(None, "what the policy is asked for: numbers, or {part: value}; null: rest")
    source: str | None = doc(
        None, "of goals: keyboard, gamepad, text, file:PATH, network:PORT; null: goal= all along"
    )
    loop_rate: float | None = doc(
        None, "of the control loop, Hz, a multiple of the policy's; null: the robot's", POSITIVE
    )
    realtime: str = doc(
        "auto", "SCHED_FIFO and locked memory: auto (if permitted), on or off", REALTIME
    )
    inference: str = doc(
        "auto", "inline in the loop, in a thread of its own, or auto: by its time", INFERENCE
    )
    dry_run: bool = doc(False, "read, act and supervise, but send nothing to the robot")

    def settle(self) -> None:
        on_interface(self.robot, self.interface)


@dataclass
class Serve:
    """Put this machine's robot on the network, for `deploy robot=remote_...` elsewhere."""

    defaults: list[Any] = groups({"robot": "sim_go2"}, "_self_")
    robot: Any = MISSING
    interface: str | None = doc(None, "network interface the robot is on, e.g. eth0")
    host: str = doc("127.0.0.1", "address to listen on; others than this machine's need a key")
    port: int = doc(7230, "UDP port; 0: any that is free", Range(least=0, most=65535))
    key_file: str | None = doc(None, "file with the key that both ends know")
    realtime: str = doc(
        "auto", "SCHED_FIFO and locked memory: auto (if permitted), on or off", REALTIME
    )

    def settle(self) -> None:
        on_interface(self.robot, self.interface)


@dataclass
class Check:
    """Watch a robot's joints, base, battery and link with its motors off; nothing is commanded."""

    defaults: list[Any] = groups({"robot": "sim_go2"}, "_self_")
    robot: Any = MISSING
    interface: str | None = doc(None, "network interface the robot is on, e.g. eth0")
    duration: float | None = doc(None, "s; null: until Ctrl-C", POSITIVE)

    def settle(self) -> None:
        on_interface(self.robot, self.interface)


@dataclass
class Calibrate:
    """Record zero and range of every joint of a servo chain, moved by hand with torque off."""

    defaults: list[Any] = groups({"robot": "x_arm6"}, "_self_")
    robot: Any = MISSING
    seconds: float | None = doc(None, "length of the recording, s; null: until Enter", POSITIVE)


@dataclass
class Simulate:
    """Serve a simulated robot on the wire of the real one, until Ctrl-C."""

    defaults: list[Any] = groups({"robot": "go2"}, {"viewer": "none"}, "_self_")
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

    defaults: list[Any] = groups({"viewer": "web"}, "_self_")
    viewer: Any = MISSING
    log: str = doc(MISSING, "MCAP file")


@dataclass
class Record:
    """Record episodes of a trained policy as a set of transitions."""

    defaults: list[Any] = groups("_self_", {"env": None})
    env: Any = None
    id: str | None = doc(None, "Gymnasium id, for env=gym")
    run: str = doc(MISSING, "run folder")
    out: str = doc(MISSING, "folder to write")
    bundle: str = doc("best", "best or last", BUNDLES)
    episodes: int = doc(100, "episodes", COUNT)
    num_envs: int = doc(16, "environments stepped together, unless env= says", COUNT)
    noise: float = doc(0.0, "deviation added to actions, as a share of their half range", SHARE)
    seed: int = doc(0, "of environments and noise", NOT_NEGATIVE)
    goal: Any = doc(None, "hold this goal: its numbers, or {part: value}; null: as the task draws")

    def settle(self) -> None:
        if self.env is not None and self.env.id is None:
            raise ValueError(f"env: {self.env.name!r} has nothing to step, expected an environment")


@dataclass
class Info:
    """Say what is in a set of transitions, and check it."""

    path: str = doc(MISSING, "its folder")


@dataclass
class List:
    """List policies, environments, robots, data sets, experiments and runs."""


@dataclass
class Demo:
    """Train a Go2 to walk, evaluate it, film it and deploy it on a simulated robot."""


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(
            "train", Train, "motoric.scripts.train:run",
            (
                "experiment=go2_walk",
                "policy=dsac_t env=half_cheetah seed=1 total_steps=300000",
                "policy=sac env=gym id=Ant-v5",
                "policy=bc env=none dataset=local dataset.path=data/walk total_steps=20000",
                "-m policy=dsac_t,sac env=hopper seed=1,2,3",
                "-m hydra/launcher=ray policy=sac env=hopper seed=1,2,3",
                "resume=runs/DIR",
            ),
            paths=("run", "runs", "resume", "dataset.path"),
            many="motoric.scripts.sweeps.sweep:run",
        ),
        Command(
            "evaluate", Evaluate, "motoric.scripts.evaluate:run",
            ("run=runs/DIR episodes=20", "run=runs/DIR viewer=web"),
            first="run", paths=("run", "viewer.out"),
        ),
        Command(
            "export", Export, "motoric.scripts.export:run",
            ("run=runs/DIR",),
            first="run", paths=("run", "out"),
        ),
        Command(
            "deploy", Deploy, "motoric.scripts.deploy:run",
            (
                "run=runs/DIR robot=sim_go2 duration=10 goal=[0.5,0,0]",
                "run=runs/DIR robot=go2 interface=eth0 goal=[0.3,0,0]",
            ),
            first="run", paths=("run", "robot.model"),
        ),
        Command(
            "serve", Serve, "motoric.scripts.serve:run",
            ("robot=sim_go2", "robot=sim_go2 host=0.0.0.0 key_file=robot.key"),
            paths=("key_file", "robot.model"),
        ),
        Command(
            "check", Check, "motoric.scripts.check:run",
            ("robot=go2 interface=eth0", "robot=x_arm6 duration=10"),
            paths=("robot.model",),
        ),
        Command(
            "calibrate", Calibrate, "motoric.scripts.calibrate:run",
            ("robot=x_arm6", "robot=x_arm6 robot.options.port=/dev/ttyUSB1 seconds=30"),
            paths=("robot.model",),
        ),
        Command(
            "simulate", Simulate, "motoric.scripts.simulate:run",
            (
                "robot=go2 interface=lo",
                "robot=go2 viewer=web",
                "robot=x_arm6 port=/tmp/arm lose=0.0001",
            ),
            paths=("record", "robot.model"),
        ),
        Command(
            "replay", Replay, "motoric.scripts.replay:run",
            ("runs/DIR/logs/LOG.mcap", "log=LOG.mcap viewer=video"),
            first="log", paths=("log", "viewer.out"),
        ),
        Command(
            "data record", Record, "motoric.scripts.collect:run_record",
            ("run=runs/DIR out=data/walk episodes=200 noise=0.1",),
            paths=("run", "out"),
        ),
        Command(
            "data info", Info, "motoric.scripts.collect:run_info",
            ("data/walk",),
            first="path", paths=("path",),
        ),
        Command("list", List, "motoric.scripts.listing:run"),
        Command("demo", Demo, "motoric.scripts.demo:run"),
    )
}  # fmt: skip
