"""How properties are tried out, in every package: as a busy machine allows."""

import os

from hypothesis import HealthCheck, settings

# No deadline and no word on slowness: both measure the machine, not the code. In CI the examples
# are the same on every run, so that what fails there fails again.
settings.register_profile(
    "unhurried",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("unhurried")
