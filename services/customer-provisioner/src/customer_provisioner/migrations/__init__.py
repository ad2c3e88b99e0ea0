"""The migrations of customer-provisioner's database."""

from typing import Final

OWN_TABLE: Final = "user_profiles"
"""The table by which the database differs from another service's: every revision has it."""
