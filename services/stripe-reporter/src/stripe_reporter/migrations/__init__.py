"""The revisions of this service's database, oldest first in ``versions``."""

from typing import Final

OWN_TABLE: Final = "meter_calls"
"""The table by which the database differs from another service's: every revision has it."""
