"""How many examples a property is tried with: few in `make test`, many times more in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("EXAMPLES", "1"))  # `make fuzz` sets it

# For properties without `examples` too. Hypothesis would fail an example that takes 200 ms, and slow generation: on a
# busy machine every property does. pytest's timeout ends what hangs.
settings.register_profile(
    "busy machine",
    max_examples=settings().max_examples * TIMES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy machine")


def examples(few: int) -> settings:
    """A decorator for a property: it is tried with `few` examples, or in `make fuzz` with `TIMES` as many."""
    return settings(max_examples=few * TIMES)
