"""Hypothesis settings of every package."""

import os

from hypothesis import HealthCheck, settings

# Neither a deadline nor a check of slowness: both measure the machine, not the code. In CI the
# examples are the same on every run, so that a failure can be repeated.
settings.register_profile(
    "unhurried",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("unhurried")
