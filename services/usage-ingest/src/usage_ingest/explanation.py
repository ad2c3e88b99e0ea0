"""An event's way to Stripe, or what it waits for, in sentences: pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from nexus_service.console import Row, Tone, rfc_3339
from usage_ingest.inquiries import UNFINISHED, Standing, Tally, Trace

TITLES: Final = ("of", "state", "meter", "number", "sum", "oldest")

NEXT: Final = {
    "waiting": "its user has no Stripe customer yet; it is reported once there is one",
    "due": "its window has not closed yet, or the next claim takes it",
    "not_billable": "runs of its status are not billed (BILLABLE_STATUSES)",
    "expired": "Stripe takes no usage older than 35 days; it will never be sent",
}

FATES: Final = {
    "pending": "not forwarded yet",
    "forwarded": "forwarded; stripe-reporter has not answered",
    "reported": "counted by Stripe",
    "superseded": "refused for a deleted customer; another report took over",
}


def explain(trace: Trace) -> Iterator[str]:
    """Yield the steps of an event, oldest first, ending with what is next or why nothing is."""
    event = trace.event
    yield f"occurred {rfc_3339(event['occurred_at'])}, said by {event['source']}"
    yield (
        f"recorded {rfc_3339(event['created_at'])}: {event['tool_name']} of {event['server_id']}"
        f" for user {event['user_id']}, {event['status']}"
    )
    if event["traceparent"]:
        yield f"trace {event['traceparent'].split('-')[1]}"
    if event["metadata_left_out"]:
        yield "its metadata can't be stored and was left out; nothing is billed by it"
    yield f"worth {_worth(event['readings'])}"
    if event["billing_state"] != "claimed":
        yield f"{event['billing_state']}: {NEXT[event['billing_state']]}"
    for report in trace.reports:
        yield (
            f"report {report['identifier']} of {rfc_3339(report['created_at'])} to"
            f" {report['stripe_customer_id']}: {report['value']} on {report['meter']}"
            f" with {report['event_count']} runs"
        )
        yield f"  {report['state']}: {_fate(report)}"


def table(standing: Standing, now: datetime, allowed: timedelta) -> list[Row]:
    """Return how events and reports stand, a row for each state and meter.

    What is unanswered for longer than ``allowed`` stands out, and what a person must settle.
    """
    return [
        *(_row("events", each, now, allowed) for each in standing.events),
        *(_row("reports", each, now, allowed) for each in standing.reports),
    ]


def _row(of: str, each: Tally, now: datetime, allowed: timedelta) -> Row:
    age = None if each.state == "reported" else now - each.oldest
    state = f"{each.state}, and more" if each.more else each.state
    cells = (of, state, each.meter, each.number, each.value, age)
    return Row(cells, _tone(each, now - each.oldest, allowed))


def _tone(each: Tally, age: timedelta, allowed: timedelta) -> Tone:
    if each.state == "rejected":
        return Tone.NOTE
    return Tone.BAD if each.state in UNFINISHED and age > allowed else Tone.PLAIN


def _fate(report: Mapping[str, Any]) -> str:
    if report["state"] == "rejected":
        fate = f"refused as {report['reason']}; its dead letter says more"
    else:
        fate = FATES[report["state"]]
    moment = report["answered_at"] or report["forwarded_at"]
    unknown = ", after its outcome was unknown for a while" if report["ever_unknown"] else ""
    return f"{fate}{f' ({rfc_3339(moment)})' if moment else ''}{unknown}"


def _worth(readings: Mapping[str, int]) -> str:
    return ", ".join(f"{value} on {meter}" for meter, value in readings.items()) or "nothing"
