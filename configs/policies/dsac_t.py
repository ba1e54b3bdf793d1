"""DSAC-T."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import OffPolicy
from motoric.configs.schema import COUNT, FACTOR, NOT_NEGATIVE, POSITIVE, doc


@dataclass
class Config(OffPolicy):
    """Distributional soft actor-critic with three refinements, at one update per step."""

    learner = "motoric.policies.baselines:dsac_t"
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

    def settle(self) -> None:
        if len(self.rho_range) != 2 or self.rho_range[0] >= self.rho_range[1]:
            raise ValueError(f"policy.rho_range: {self.rho_range}, expected [low, high]")
