"""Which errors are worth trying again: the engine's classes decide, not the task."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from federation.errors import Conflict, FedsyncError, LeaseHeld, Transient

RETRIES = 4

POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=[LeaseHeld, Conflict],
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=5),
            reason="another runner or a person is at work there",
        ),
        RetryRule(
            exception=Transient,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=30),
            reason="the system may answer later",
        ),
        RetryRule(exception=FedsyncError, action=RetryAction.FAIL, reason="needs a person"),
    ]
)


def worst(errors: list[FedsyncError]) -> FedsyncError:
    """The error to raise for several: one that is worth a retry if there is any, for a retry skips what is settled."""
    return next((error for error in errors if isinstance(error, (Transient, Conflict, LeaseHeld))), errors[0])
