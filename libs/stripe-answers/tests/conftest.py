"""How the properties are tried out."""

from hypothesis import settings

# Without a deadline: a busy machine is no fault of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
