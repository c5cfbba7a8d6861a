"""How long the state machines run: a bounded, reproducible number of examples in CI; as long as one likes under `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FUZZ = "FEDSYNC_FUZZ_EXAMPLES"


def machine_settings(examples: int, steps: int) -> settings:
    """`examples` runs of up to `steps` steps, the same ones each time; with FEDSYNC_FUZZ_EXAMPLES, so many new ones."""
    wanted = os.environ.get(FUZZ)
    return settings(
        max_examples=int(wanted) if wanted else examples,
        stateful_step_count=steps * 2 if wanted else steps,
        derandomize=not wanted,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
