"""Settings of hypothesis."""

from hypothesis import settings

# No deadline: examples take longer on a busy machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
