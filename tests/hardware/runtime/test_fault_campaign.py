"""A small part of the fault campaign: a robot that stands, every fault once.

The verdict is the campaign's (`benchmarks/fault_campaign.py`): from what the simulated robot wrote
down of its motors. All time limits have a second of slack for a busy machine.
"""

from __future__ import annotations

import re

import fault_campaign as campaign
import pytest

SLACK = 1.0  # s
# A machine that is too busy may end a deployment before its fault: a state, an action, a command or
# a tick of the loop comes late. That is not judged, and repeated; any other end is a failure.
BUSY = re.compile(r"\d s old|policy late: |no command for 0\.|control loop paused for ")

# the fault that ends it, the robot, words of the reason, faults before that must not end it
CASES = (
    ("policy process killed", "go2", "", ()),
    ("policy process killed", "remote_go2", "server: damped: no command for 0.", ()),
    ("policy process stopped for 200 ms", "go2", "paused for 0.|no command for 0.1 s", ()),
    ("policy 200 ms late", "sim_go2", "policy late: no action for 0.", ()),
    ("policy returns NaN", "sim_go2", "action: not finite", ()),
    ("simulator killed", "go2", "s old, at most 0.1 allowed", ()),
    ("simulator stopped for 200 ms", "sim_go2", "s old, at most 0.1 allowed", ()),
    ("robot server killed", "remote_go2+go2", "s old, at most 0.1|connection lost", ()),
    ("network stalls for 300 ms", "remote_go2", "s old, at most 0.1|damped: no command",
     ("10 % of packets lost", "10 % of packets damaged")),
    ("e-stop by key", "sim_go2", "e-stop by key", ("disk full while logging",)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "robot", "words", "before"), CASES, ids=[f"{c[0]}, {c[1]}" for c in CASES]
)
def test_a_fault_ends_safe(bundle_folder, domain, name, robot, words, before):
    for _ in range(3):
        try:
            found = campaign.try_fault(
                campaign.FAULTS[name], robot, bundle_folder, [0.0] * 3, walk=0.3,
                before=tuple(campaign.FAULTS[n] for n in before), slack=SLACK,
                options=("loop_rate=100", "realtime=off"), domain=domain,
            )  # fmt: skip
        except campaign.Failed as error:
            ended = str(error)
        else:
            assert found.problem == ""
            assert found.outcome == "safe"
            if any(w in found.reason for w in words.split("|")):
                return
            ended = f"it ended otherwise: {found.reason}"
        if not BUSY.search(ended):
            break
    pytest.fail(ended)
