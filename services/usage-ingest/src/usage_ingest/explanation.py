"""The steps of an event on its way to Stripe, or what it waits for, in sentences. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from nexus_service.console import rfc_3339
from usage_ingest.charging import is_route
from usage_ingest.inference import infer
from usage_ingest.periods import Placement
from usage_ingest.reconciliation import HourAtStripe

NEXT: Final = {
    "waiting": "its account has no Stripe customer yet; it is reported once there is one",
    "due": "its window has not closed yet, or the next claim takes it",
    "not_billable": "runs of its status are not billed (BILLABLE_STATUSES)",
    "expired": "Stripe takes no usage older than 35 days; it will never be sent",
}

REPORT_STATES: Final = {
    "pending": "not forwarded yet",
    "forwarded": "forwarded; stripe-reporter has not answered",
    "reported": "accepted by Stripe",
    "superseded": "refused for a deleted customer; another report took over",
    "shadow": "never sent (REPORTING_LIVE_FROM): reported by the way before this one",
}


ON_NO_INVOICE: Final = {"rejected", "rejected_later", "superseded", "shadow"}
"""The states of reports that Stripe counts on no invoice."""

PLACEMENTS: Final = {
    Placement.IN_PERIOD: "it comes in its billing period",
    Placement.IN_GRACE: "after its billing period, and before the invoice is final",
    Placement.AFTER_FINALISATION: "the invoice of its billing period was final: it is on none",
    Placement.NOT_SUBSCRIBED: "its customer has no subscription with that meter: on no invoice",
    Placement.NOT_CHARGED: "its account's plan has no price for that meter: on no invoice",
    Placement.ENDED_EARLY: (
        "its subscription was canceled at once: on an invoice only if one was asked for"
    ),
    Placement.UNKNOWN: (
        "its account's subscriptions were not read yet; customer-provisioner reads all once a day"
    ),
}

LACKED_PRICE: Final = {
    "unpriced": "it is priced once the price table (PLANS_FILE) has it",
    "priced": "it has one now, by which its tokens cost nothing",
    "given_up": "it is too old now, and is billed without the cost of its tokens",
}

MAX_COUNTED: Final = 10_000
"""Runs that wait, and claims of which runs may stay, for each time of one account of a user."""


@dataclass(frozen=True, slots=True)
class EventHistory:
    """An event's row, and the rows of the reports it went into.

    ``sums`` is what Stripe's own sums say of each report's hour, ``None`` if they were not read.
    ``placements`` say on which invoice each report is, or would be if it was accepted now.
    """

    event: Mapping[str, Any]
    reports: tuple[Mapping[str, Any], ...]
    sums: tuple[HourAtStripe | None, ...]
    placements: tuple[Placement, ...]


def explain(history: EventHistory) -> Iterator[str]:
    """Yield the steps of an event, the oldest first, and what comes next or why nothing does."""
    event = history.event
    yield f"occurred {rfc_3339(event['occurred_at'])}, published by {event['source']}"
    yield (
        f"recorded {rfc_3339(event['created_at'])}: {event['tool_name']} of {event['server_id']}"
        f" for user {event['user_id']}, {event['status']}"
    )
    if event["traceparent"]:
        yield f"trace {event['traceparent'].split('-')[1]}"
    if event["details_created_at"]:
        yield f"details recorded {rfc_3339(event['details_created_at'])}: {_details(event)}"
    if event["metadata_left_out"]:
        yield "its metadata can't be stored and was left out; nothing is billed by it"
    yield f"worth {_readings(event['readings'])}"
    if any(is_route(key) for key in event["readings"]):
        yield "  a route (@) is on the meter that the plan of its account has for it, if any"
    yield from _price(event)
    if event["account_id"] != event["user_id"]:
        yield f"paid by account {event['account_id']}, which its user was assigned to"
    if event["claimed_for"] not in {None, event["account_id"]}:
        yield (
            f"claimed for account {event['claimed_for']}, before the assignment was known: that"
            " stays so"
        )
    if event["billing_state"] != "claimed":
        yield f"{event['billing_state']}: {NEXT[event['billing_state']]}"
    yield from _reports(history)


def _reports(history: EventHistory) -> Iterator[str]:
    """Yield what became of each report of the event's claim."""
    if len({report["meter"] for report in history.reports}) > 1:
        yield (
            "claimed with other runs, with a report for each meter; this run adds what it is worth,"
            " and a unique tool if it is the first use"
        )
    for report, hour, placement in zip(
        history.reports, history.sums, history.placements, strict=True
    ):
        yield (
            f"report {report['identifier']} of {rfc_3339(report['created_at'])} to"
            f" {report['stripe_customer_id']}: {report['value']} on {report['meter']}"
            f" with {report['event_count']} runs"
        )
        yield f"  {report['state']}: {_state_of(report)}"
        if report["state"] not in ON_NO_INVOICE:
            yield f"  invoice: {placement}, {PLACEMENTS[placement]}"
        if report["state"] != "superseded":
            yield f"  {sum_of_hour(report['report_id'], hour)}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """From ``since`` on an account pays for a user, as became known at ``known_at``.

    ``None``, with revision 0: from the beginning, as for every user. Of the runs from then on
    ``waiting`` wait; ``stay`` is how many had been claimed for another account, by that account.
    """

    account_id: UUID
    since: datetime | None
    revision: int
    known_at: datetime | None
    has_customer: bool
    waiting: int
    stay: dict[UUID, int]


def explain_payers(user_id: UUID, assignments: Sequence[Assignment]) -> Iterator[str]:
    """Yield who pays for a user's runs, the earliest first, and what an assignment left."""
    for number, each in enumerate(assignments, 1):
        same = [other for other in assignments[number:] if other.since == each.since]
        yield f"{_from(each, assignments)}{_overruled(same)}"
        if not same:
            yield from _waiting(each)
        for other, runs in each.stay.items():
            whose = "the user's own" if other == user_id else f"account {other}'s"
            yield f"  {_number(runs)} runs after that were claimed before, and stay {whose}"


def _from(each: Assignment, assignments: Sequence[Assignment]) -> str:
    own = "the user's own account"
    if each.since is None or each.known_at is None:
        first = next((rfc_3339(other.since) for other in assignments if other.since), None)
        return f"until {first}: {own}" if first else f"always: {own}"
    account = own if each.account_id == assignments[0].account_id else f"account {each.account_id}"
    known = f"revision {each.revision}, known since {rfc_3339(each.known_at)}"
    return f"from {rfc_3339(each.since)}: {account} ({known})"


def _overruled(by: Sequence[Assignment]) -> str:
    return f", overruled by revision {by[-1].revision}" if by else ""


def _waiting(each: Assignment) -> Iterator[str]:
    if not each.has_customer:
        waiting = f"; runs that wait for one: {_number(each.waiting)}" if each.waiting else ""
        yield f"  it has no Stripe customer{waiting}"
    elif each.waiting:
        yield f"  runs that wait until the next sweep: {_number(each.waiting)}"


def _number(runs: int) -> str:
    return f"{MAX_COUNTED} or more" if runs >= MAX_COUNTED else str(runs)


def sum_of_hour(report_id: UUID, hour: HourAtStripe | None) -> str:
    """Return what Stripe's own sum says of a report's hour, and what follows for the report."""
    if hour is None:
        return "Stripe's sum of its hour was not read yet"
    shown = f"Stripe's sum of its hour is {hour.counted:g}, as read {rfc_3339(hour.as_of)}"
    reports = [each.report for each in hour.reports]
    inferred = infer(reports, hour.counted, hour.as_of).get(report_id)
    if inferred is not None:
        shown += f": it seems that Stripe {'had' if inferred else 'did not show'} it (an inference)"
    if hour.lagging:
        return f"{shown}; Stripe does not show yet all that it accepted"
    if hour.difference is None:
        return f"{shown}, as expected"
    amount = f"{abs(hour.difference.by):g} too {'little' if hour.difference.by < 0 else 'much'}"
    if hour.settlement is not None:
        return f"{shown}, {amount} ({hour.difference.kind}), settled: {hour.settlement}"
    return f"{shown}, {amount} ({hour.difference.kind}; see usage-ingest reconcile)"


def _details(event: Mapping[str, Any]) -> str:
    known = [f"model {event['model']}"] if event["model"] else []
    known += [
        f"{event[f'{kind}_tokens']} {kind} tokens"
        for kind in ("input", "output", "cached")
        if event[f"{kind}_tokens"] is not None
    ]
    charged = "" if event["priced_as"] or event["lacked_price"] else "; nothing is billed by them"
    return f"{', '.join(known) or 'none known'}{charged}"


def _price(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield by what price the tokens were read, and whether that came later."""
    if event["priced_as"]:
        yield (
            f"priced as {event['priced_as']} from {rfc_3339(event['priced_from'])} on, by"
            f" {event['price_source']}"
        )
    if event["late_value"] is not None:
        yield (
            f"priced later, {rfc_3339(event['late_at'])}: {event['late_value']} micro-USD,"
            f" {event['late_state']}"
        )
    elif event["lacked_price"]:
        yield f"its model had no price: {LACKED_PRICE[event['lacked_price']]}"


def _state_of(report: Mapping[str, Any]) -> str:
    if report["state"] == "rejected":
        state = f"refused as {report['reason']}; its dead letter says more"
    elif report["state"] == "rejected_later":
        state = (
            f"accepted, but not counted, as Stripe said later: {report['reason']}; it is on no"
            " invoice, and nothing sends it again"
        )
    else:
        state = REPORT_STATES[report["state"]]
    moment = report["answered_at"] or report["forwarded_at"]
    unknown = ", after its outcome was unknown for a while" if report["ever_unknown"] else ""
    return f"{state}{f' ({rfc_3339(moment)})' if moment else ''}{unknown}"


def _readings(readings: Mapping[str, int]) -> str:
    return ", ".join(f"{value} on {meter}" for meter, value in readings.items()) or "nothing"
