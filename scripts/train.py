"""Train a policy: `motoric train …`, or `python scripts/train.py …`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from motoric.configs.commands import Train
from motoric.scripts.training.run import Diverged, Result, train

__all__ = ["Diverged", "Result", "run", "train"]


def run(settings: Train, say: Callable[[str], None]) -> int:
    """`motoric train`."""
    try:
        result = train(settings, say)
    except Diverged as error:
        print(f"motoric train: {error}", file=sys.stderr)
        return 1
    best = "" if result.best_return is None else f", best return {result.best_return:.1f}"
    say(f"{result.steps:,} {result.unit} in {result.seconds:.0f} s{best}: {result.folder}")
    if result.stopped is not None:
        say(f"go on with: motoric train resume={result.folder}")
        return 128 + result.stopped
    return 0


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
