"""Valid events; a test names only the fields that matter to it."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from local_stack.catalogue import METER
from nexus_contracts import (
    CustomerProvisioned,
    Event,
    ToolExecuted,
    ToolExecutedV2,
    UsageRecorded,
    UserCreated,
)

NAME: Final = "Ada"
"""The name of every user."""


def tool_run(
    user_id: UUID | None = None,
    *,
    event_id: UUID | None = None,
    source: str = "test/hub",
    time: datetime | None = None,
    kind: type[ToolExecuted] = ToolExecuted,
    **data: Any,
) -> Event[ToolExecuted]:
    """Return a billable tool run of ``user_id``, or of a new user, in the version ``kind``."""
    fields = {
        "server_id": "weather",
        "tool_name": "forecast",
        "origin": "direct",
        "status": "succeeded",
        **data,
    }
    return Event.of(
        kind(user_id=user_id or uuid4(), **fields),
        source=source,
        id=event_id or uuid4(),
        time=time or datetime.now(UTC),
    )


def second_version(run: Event[ToolExecuted], **details: Any) -> Event[ToolExecuted]:
    """Return the same run in version 2, with ``details``."""
    data = ToolExecutedV2(**{**run.data.model_dump(), **details})
    return Event.of(data, source=run.source, id=run.id, time=run.time)


def past_run(user_id: UUID, **data: Any) -> Event[ToolExecuted]:
    """Return a run whose window has closed: it is claimed as soon as it is recorded."""
    return tool_run(user_id, time=datetime.now(UTC) - timedelta(seconds=30), **data)


def provisioned(user_id: UUID, customer: str, generation: int = 1) -> Event[CustomerProvisioned]:
    """Return the event that ``user_id`` has ``customer`` at Stripe."""
    return Event.of(
        CustomerProvisioned(user_id=user_id, stripe_customer_id=customer, generation=generation),
        source="test/provisioner",
        id=uuid4(),
        time=datetime.now(UTC),
    )


def user_created(user_id: UUID, email: str = "ada@example.com") -> Event[UserCreated]:
    """Return the event that there is a user."""
    data = UserCreated(user_id=user_id, email=email, name=NAME)
    return Event.of(data, source="test/accounts", id=uuid4(), time=datetime.now(UTC))


def report(customer: str, report_id: UUID | None = None, **data: Any) -> Event[UsageRecorded]:
    """Return a report of one run of ``customer``, a minute ago, identified as ours are."""
    its_id, now = report_id or uuid4(), datetime.now(UTC)
    fields = {
        "identifier": f"nexus:{its_id}",
        "meter": METER,
        "value": 1,
        "occurred_at": now - timedelta(minutes=1),
        "event_count": 1,
        **data,
    }
    return Event.of(
        UsageRecorded(report_id=its_id, stripe_customer_id=customer, **fields),
        source="test/ingest",
        id=its_id,
        time=now,
    )
