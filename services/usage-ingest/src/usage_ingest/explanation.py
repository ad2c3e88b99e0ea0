"""An event's way to Stripe, or what it waits for, in sentences: pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from usage_ingest.inquiries import Standing, Tally, Trace

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
    yield f"occurred {_time(event['occurred_at'])}, said by {event['source']}"
    yield (
        f"recorded {_time(event['created_at'])}: {event['tool_name']} of {event['server_id']}"
        f" for user {event['user_id']}, {event['status']}"
    )
    if event["traceparent"]:
        yield f"trace {event['traceparent'].split('-')[1]}"
    yield f"worth {_worth(event['readings'])}"
    if event["billing_state"] != "claimed":
        yield f"{event['billing_state']}: {NEXT[event['billing_state']]}"
    for report in trace.reports:
        yield (
            f"report {report['identifier']} of {report['created_at']:%Y-%m-%d %H:%M:%S} to"
            f" {report['stripe_customer_id']}: {report['value']} on {report['meter']}"
            f" with {report['event_count']} runs"
        )
        yield f"  {report['state']}: {_fate(report)}"


def table(standing: Standing, now: datetime) -> Iterator[str]:
    """Yield how events and reports stand, a line for each state."""
    yield f"{'events':<14}{'':<24}{'number':>10}{'':>14}{'oldest':>12}"
    for each in standing.events:
        yield _line(each, now)
    yield f"{'reports':<14}{'meter':<24}{'number':>10}{'value':>14}{'oldest':>12}"
    for each in standing.reports:
        yield _line(each, now)


def _line(each: Tally, now: datetime) -> str:
    value = "" if each.value is None else each.value
    age = f"{(now - each.oldest).total_seconds():.0f} s"
    return f"{each.state:<14}{each.meter or '':<24}{each.number:>10}{value:>14}{age:>12}"


def _fate(report: Mapping[str, Any]) -> str:
    if report["state"] == "rejected":
        fate = f"refused as {report['reason']}; its dead letter says more"
    else:
        fate = FATES[report["state"]]
    moment = report["answered_at"] or report["forwarded_at"]
    unknown = ", after its outcome was unknown for a while" if report["ever_unknown"] else ""
    return f"{fate}{f' ({_time(moment)})' if moment else ''}{unknown}"


def _worth(readings: Mapping[str, int]) -> str:
    return ", ".join(f"{value} on {meter}" for meter, value in readings.items()) or "nothing"


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
