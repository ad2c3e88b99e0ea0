"""The revisions of the usage-ingest database."""

from typing import Final

OWN_TABLE: Final = "usage_events"
"""The table by which the database differs from another service's: every revision has it."""
