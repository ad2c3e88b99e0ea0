"""The log events of all services: names, levels and fields from the code, meanings from here."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent

MEANINGS: Final = {
    "ack_lost": "a message was processed and its ack did not arrive: it comes again, harmlessly",
    "address_ignored": "a known user was created again with another address, which is ignored:"
    " `user.updated` changes it",
    "announcements_confirmed_again": "the broker confirms the events `event_name` again; so many"
    " publishes had failed",
    "announcements_invalid": "so many facts break a rule of their event `event_name`, the first the"
    " one that is named; all others are announced",
    "announcements_not_confirmed": "the broker did not confirm events `event_name`; the relay"
    " repeats them",
    "cancel_lost": "a pause lost its connection; what was in hand is delivered again",
    "change_refused": "Stripe refused the changed address or name of a user; the next one is tried",
    "circuit_closed": "Stripe is called again: by stripe-reporter, one report first, or for users",
    "circuit_opened": "Stripe is not called, for `key`, `outage` or `meter`, but to try",
    "consuming_again": "what kept a queue from being consumed is over",
    "consumption_paused": "the database or Stripe is away: nothing is taken until a probe finds it",
    "consumption_resumed": "it is back",
    "consumption_stopped": "too much of a queue was dead-lettered: it waits to be resumed",
    "copies_confirmed": "all copies that an outage had kept back are confirmed, so many",
    "copies_not_confirmed": "retry copies or dead letters did not get through; they are repeated",
    "customer_deleted": "Stripe has deleted the customer of an account, and refuses its usage from"
    " now on",
    "database_available": "… and can be written to again",
    "database_unavailable": "the database can't be written to, and why; one line for each outage",
    "difference_found": "Stripe's own sum of an hour is not what the ledger expects;"
    " `usage-ingest reconcile` lists all",
    "drain_cut_short": "not all in hand could be finished or handed back: it is delivered again",
    "drain_failed": "stopping met an error; what was in hand is delivered again",
    "event_refused": "nexus-outbox: the broker or the events API takes other events, not this one;"
    " it is repeated",
    "event_set_aside": "nexus-outbox: an event breaks its contract; `broken` says which rule",
    "events_accepted_again": "events API: the broker confirms events again; so many had failed",
    "events_confirmed_again": "nexus-outbox: events are confirmed again; so many had failed",
    "events_not_accepted": "events API: the broker did not confirm events; each such request is"
    " answered with 503",
    "events_not_confirmed": "nexus-outbox: events were not confirmed; they are repeated",
    "fast_reading_ended": "a frame is not as RabbitMQ sends them: the AMQP client reads the rest of"
    " that connection, at more processor time, and says what is wrong with it",
    "grace_exceeded": "stopping took longer than SHUTDOWN_GRACE_SECONDS",
    "library_log": "a library logged something; its words are left out, they may quote data",
    "loop_failed": "a loop ended by an error and begins again after a pause",
    "message_dead_lettered": "a message waits for a person, with this reason",
    "message_retried": "a message failed and waits in a retry tier",
    "message_too_large": "a body beyond max_message_size was queued already: the broker"
    " dead-letters it, with the cause `rejected`",
    "meter_errors_found": "Stripe says that it does not count some of what it had accepted; its"
    " samples name `new` attempts of ours",
    "meter_missing": "Stripe has no active meter of that name: `stripe-reporter meters ensure`",
    "not_consuming": "a queue's connection is lost, no address of the broker answers, the queue is"
    " missing, or the broker ended the consumer: `cause`; it is tried on and on",
    "publisher_connected": "the publishing connection stands again, after so many attempts",
    "publisher_lost": "the publishing connection is lost; it is made anew",
    "publisher_waits": "… and is not there yet",
    "rejections_announced_again": "the broker confirms `usage.rejected_later` again; so many had"
    " failed",
    "rejections_not_announced": "the broker did not confirm `usage.rejected_later`; it is repeated"
    " with the same id",
    "reporting_paused": "REPORTING_PAUSED is set: usage is recorded, and none is reported",
    "shadow_mode": "REPORTING_LIVE_FROM is set: usage that ended before it is never sent",
    "reports_forwarded_again": "the broker confirms reports again; so many publishes had failed",
    "report_set_aside": "no event can carry a report: `broken` says which rule; the runbook helps",
    "reports_not_forwarded": "the broker did not confirm reports; they are repeated",
    "resume_asked_for": "SIGUSR1 came; what a flood had stopped or held back goes on",
    "runs_never_priced": "runs became too old for a price, or can have none: billed without it",
    "runs_priced_late": "runs whose model had no price were priced; their cost is reported now",
    "serving": "the service is ready",
    "source_held_back": "too much of a publisher was dead-lettered: further dead letters wait",
    "stopped": "the service has ended",
    "stopping": "SIGTERM came; what is in hand is finished or handed back",
    "subscription_refused": "Stripe has listed a subscription and refuses to give it: the sweep"
    " passes it over",
    "subscription_sweep_abandoned": "Stripe refuses to list on from where the nightly sweep was:"
    " it begins anew",
    "surplus_customers": "a user has further customers at Stripe: look at them there",
    "thresholds_announced_again": "the broker confirms `usage.threshold_reached` again; so many had"
    " failed",
    "thresholds_not_announced": "the broker did not confirm `usage.threshold_reached`; it is"
    " repeated with the same id",
    "unexpected_answer": "Stripe answered what only a mistake of ours or of the set-up explains",
    "usage_expired": "usage became 35 days old without a report and is never billed",
    "usage_put_back": "due usage waits again: its user was assigned to an account without customer",
    "usage_released": "usage whose customer has come became due, or reports were replaced",
    "user_refused": "Stripe refuses to make a customer of this user",
    "waiting_at_start": "broker or database is not there yet; the service waits",
    "webhook_lost": "the nightly sweep found a subscription otherwise than the webhooks had said,"
    " and repaired it",
    "webhook_not_understood": "Stripe signed a webhook, and it is no event that is known; Stripe"
    " repeats it for three days",
    "webhook_of_other_mode": "Stripe signed a webhook of live mode for a service of test mode, or"
    " the reverse: the endpoint's secret is of the other mode",
}
"""Every event has one here, and nothing else has: ``make check`` fails otherwise."""

PAGE: Final = """\
# Log events

One JSON object a line (`LOG_FORMAT=json`, the default anywhere but on a terminal), each with
`event`, `level`, `timestamp`, `service` and the fields below. Names and fields are stable: search
and alert by them. No line has a body, an address, a name or a key, and none is written for a
message that went well. This page is made from the code (`make docs`).

| event | level | fields | means |
|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event, as some places in the code log it."""

    name: str
    levels: frozenset[str]
    fields: frozenset[str]


def log_page() -> Iterator[str]:
    """Yield the lines of the page.

    Raises:
        LookupError: an event has no meaning here, or a meaning has no event.
    """
    events = _merged(call for path in _sources() for call in _calls(path))
    if differing := events.keys() ^ MEANINGS.keys():
        raise LookupError(f"docs/log_events.py and the code differ in {', '.join(differing)}")
    yield PAGE
    for name, event in sorted(events.items()):
        fields = ", ".join(f"`{each}`" for each in sorted(event.fields))
        levels = ", ".join(sorted(event.levels))
        yield f"| `{name}` | {levels} | {fields} | {MEANINGS[name]} |"


def _sources() -> Iterator[Path]:
    for pattern in ("libs/*/src", "services/*/src"):
        for directory in sorted(ROOT.glob(pattern)):
            yield from sorted(directory.rglob("*.py"))


def _calls(path: Path) -> Iterator[LogEvent]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            level, receiver = node.func.attr, ast.unparse(node.func.value)
            if receiver not in {"log", "structlog.get_logger()"}:
                continue
            match node.args:
                case [*_, ast.Constant(value=str(name))]:
                    fields = frozenset(each.arg for each in node.keywords if each.arg)
                    label = "the library's" if level == "log" else level
                    yield LogEvent(name, frozenset({label}), fields)
                case _:
                    raise LookupError(f"{path}:{node.lineno}: an event needs a name, word for word")


def _merged(calls: Iterator[LogEvent]) -> dict[str, LogEvent]:
    found: dict[str, LogEvent] = {}
    for call in calls:
        known = found.get(call.name, call)
        found[call.name] = LogEvent(
            call.name, known.levels | call.levels, known.fields | call.fields
        )
    return found
