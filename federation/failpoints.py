"""Failpoints: named places in the commit protocol where a test, or a drill, lets a run die.

`reached(name)` does nothing unless the name is armed: in this process by `arm`, or for a whole process by the environment variable
FEDSYNC_FAILPOINT=`<name>[:<nth time>]`, which kills the process on the spot (SIGKILL), as a power cut would.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

ENVIRONMENT = "FEDSYNC_FAILPOINT"
NAMES = (
    "lease.taken",
    "upper.read.before",
    "upper.read.after",
    "lower.read.before",
    "lower.read.after",
    "stage.before",
    "stage.after",
    "merge.before",
    "merge.after",
    "intent.file.before",
    "intent.file.after",
    "intent.noted",
    "upper.apply.before",
    "upper.apply.after",
    "lower.apply.before",
    "lower.apply.after",
    "baseline.file.before",
    "baseline.file.after",
    "settle.before",
    "settle.pointer",
    "settle.after",
    "notify.before",
    "correction.write.before",
    "correction.write.after",
    "recover.before",
    "recover.after",
    "handover.written",
    "handover.verified",
)
"""Every place, in the order in which a run passes them; a test fails if one of them is never passed."""

_armed: dict[str, Callable[[], None]] = {}


def arm(name: str, action: Callable[[], None]) -> None:
    """Call `action` whenever this place is passed; it may raise."""
    assert name in NAMES, name
    _armed[name] = action


def disarm() -> None:
    """Forget every armed place of this process."""
    _armed.clear()


def reached(name: str) -> None:
    """This place of the protocol is being passed."""
    assert name in NAMES, name
    if _armed:
        action = _armed.get(name)
        if action is not None:
            action()


def arm_from_environment() -> None:
    """Arm what FEDSYNC_FAILPOINT names; done when this module is loaded."""
    wanted = os.environ.get(ENVIRONMENT)
    if not wanted:
        return
    name, _, nth = wanted.partition(":")
    left = int(nth or 1)

    def die() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    arm(name, die)


arm_from_environment()
