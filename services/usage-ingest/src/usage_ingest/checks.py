"""What ``check`` looks at, after the settings."""

from datetime import timedelta
from typing import Final

from nexus_broker_admin.inspection import broker_checks
from nexus_messaging.topology import TIERS
from nexus_service.checking import Checks
from nexus_service.checks import database_checks
from nexus_service.console import Tone
from usage_ingest.periods import grace_note
from usage_ingest.settings import NAME, Settings


async def _grace_note(settings: Settings) -> str | None:
    return grace_note(
        settings.invoice_grace,
        window=timedelta(seconds=settings.report_window_seconds),
        retries=sum((tier.wait for tier in TIERS), timedelta()),
        lag=timedelta(seconds=settings.stripe_summary_lag_seconds),
    )


CHECKS: Final = (
    *broker_checks(NAME),
    database_checks(NAME),
    Checks(
        "invoice grace",
        Settings,
        lambda given: {"invoice grace": lambda: _grace_note(given)},
        tone=Tone.NOTE,
    ),
)
