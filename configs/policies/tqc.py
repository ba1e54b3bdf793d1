"""Truncated quantile critics."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import OffPolicy
from motoric.configs.schema import COUNT, NOT_NEGATIVE, POSITIVE, doc


@dataclass
class Config(OffPolicy):
    """Truncated quantile critics (sb3-contrib)."""

    learner = "motoric.policies.contrib:tqc"
    name: str = "tqc"
    learning_rate: float = doc(3e-4, "Adam's step size", POSITIVE)
    ent_coef: str = doc("auto", "entropy weight: 'auto' or a number")
    target_entropy: str = doc("auto", "'auto' or a number")
    target_update_interval: int = doc(1, "updates per target update", COUNT)
    top_quantiles_to_drop_per_net: int = doc(2, "the highest, of each critic", NOT_NEGATIVE)
    n_quantiles: int = doc(25, "of each critic", COUNT)
    n_critics: int = doc(2, "critics", COUNT)

    def settle(self) -> None:
        if self.top_quantiles_to_drop_per_net >= self.n_quantiles:
            raise ValueError(
                f"policy.top_quantiles_to_drop_per_net: {self.top_quantiles_to_drop_per_net}, "
                f"expected less than policy.n_quantiles, {self.n_quantiles}"
            )
