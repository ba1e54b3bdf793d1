"""Data augmentation for mirror-symmetric robots: half of every minibatch is seen in the mirror.

A robot whose left side mirrors its right learns nothing new when a situation is mirrored, but its
policy does: the value and the advantage of a state and an action hold for their mirror images
too. Replacing a random half of each minibatch by mirror images doubles what a rollout teaches at
no cost per update, and pulls policy and value towards symmetry (Abdolhosseini et al., "On Learning
Symmetric Locomotion", 2019; Mittal et al., "Symmetry Considerations for Learning Task Symmetric
Robot Policies", 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples


@dataclass(frozen=True)
class Reflection:
    """A mirror as a signed permutation: the image of x is sign * x[..., index]; both [D]."""

    index: NDArray[np.int64]
    sign: NDArray[np.float32]

    def __post_init__(self) -> None:
        index, sign = np.asarray(self.index), np.asarray(self.sign)
        if index.ndim != 1 or sorted(index) != list(range(len(index))):
            raise ValueError(f"mirror: index {index.tolist()} is not a permutation")
        if sign.shape != index.shape or not (np.abs(sign) == 1).all():
            raise ValueError(f"mirror: sign {sign.tolist()}, expected {len(index)} of +-1")
        twice = (self(self(np.arange(1.0, len(index) + 1))) == np.arange(1.0, len(index) + 1)).all()
        if not twice:
            raise ValueError("mirror: its own mirror image is not the original")

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        return self.sign * x[..., self.index]


class MirroredRolloutBuffer(RolloutBuffer):
    """A rollout buffer whose minibatches hold a random half of their transitions mirrored.

    The log probability of the action when it was taken is kept: the policy that took it is as
    likely to take the mirrored action in the mirrored state once it is symmetric, and PPO's
    clipping bounds what happens before.

    :param observation, action: mirror images of (flat) observations and actions
    """

    def __init__(
        self, *args: Any, observation: Reflection, action: Reflection, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        for what, mirror, size in (
            ("observation", observation, int(np.prod(self.obs_shape))),
            ("action", action, self.action_dim),
        ):
            if len(mirror.index) != size:
                raise ValueError(f"mirror: {what} of {len(mirror.index)} numbers, expected {size}")
        self.mirrors = {"observation": observation, "action": action}

    def _get_samples(self, batch_inds: NDArray, env: Any = None) -> RolloutBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        mirrored = np.random.random(len(batch_inds)) < 0.5  # noqa: NPY002  (SB3's generator)
        observation = self.observations[batch_inds]
        action = self.actions[batch_inds].astype(np.float32)
        observation[mirrored] = self.mirrors["observation"](observation[mirrored])
        action[mirrored] = self.mirrors["action"](action[mirrored])
        return samples._replace(
            observations=self.to_torch(observation), actions=self.to_torch(action)
        )
