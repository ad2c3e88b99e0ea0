"""The check: no confirmed message is missing, and no run is billed more than once.

It is a pure function of the evidence; whatever does not add up is a finding.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from metering_chaos.billing import check_billing
from metering_chaos.charges import Payers
from metering_chaos.evidence import Evidence, LedgerEvent, MessageKind
from metering_chaos.findings import Finding, Verdict, Violation
from metering_chaos.reconciling import check_later_word


def check(evidence: Evidence) -> Verdict:
    """Check the evidence; what is still under way counts as unaccounted."""
    return Verdict(
        (
            *_messages(evidence),
            *_ledger_rows(evidence),
            *_states(evidence),
            *check_billing(evidence),
            *_accounts(evidence),
            *check_later_word(evidence),
            *(
                Finding(Violation.UNACCOUNTED, f"{depth} messages are left in {queue}", depth)
                for queue, depth in evidence.queued.items()
                if depth
            ),
        )
    )


def _messages(evidence: Evidence) -> Iterator[Finding]:
    """Each confirmed message is stored, or its bytes are in a dead-letter queue."""
    runs = {(each.event_id, each.run) for each in evidence.events}
    usages = {(each.event_id, each.usage) for each in evidence.events}
    dead = {each.body for each in evidence.dead_letters}
    for message in set(evidence.confirmed):
        stored = {
            MessageKind.RUN: (message.event_id, message.run) in runs
            and (message.usage is None or (message.event_id, message.usage) in usages),
            MessageKind.USER: message.user in evidence.profiles,
            MessageKind.INVALID: False,
        }
        if not (stored[message.kind] or message.body in dead):
            yield Finding(Violation.LOST, f"{message.kind} {message.event_id} was not found")


def _ledger_rows(evidence: Evidence) -> Iterator[Finding]:
    """Each row of the ledger was published with its content, and is there once."""
    sent = (*evidence.confirmed, *evidence.unconfirmed)
    runs = {(each.event_id, each.run) for each in sent}
    usages = {(each.event_id, each.usage) for each in sent}
    rows = Counter(each.event_id for each in evidence.events)
    for event in evidence.events:
        if (event.event_id, event.run) not in runs or not (
            event.usage is None or (event.event_id, event.usage) in usages
        ):
            what = f"event {event.event_id} was never published with this content"
            yield Finding(Violation.UNACCOUNTED, what)
    for event_id, count in rows.items():
        if count > 1:
            what = f"event {event_id} has {count} rows"
            yield Finding(Violation.DOUBLE_BILLED, what, count - 1)


def _states(evidence: Evidence) -> Iterator[Finding]:
    """Each row of the ledger is in the state that its run and its payer's customer require."""
    payers = Payers(evidence)
    for event in evidence.events:
        wrong = _wrong_state(event, payers.account(event.run.user) in evidence.accounts)
        if wrong is not None:
            yield Finding(Violation.UNACCOUNTED, f"event {event.event_id} {wrong}")


def _wrong_state(event: LedgerEvent, payer_has_customer: bool) -> str | None:  # noqa: FBT001
    if not event.run.billable:
        return None if event.state == "not_billable" else f"is not billable but {event.state}"
    match event.state:
        case "claimed":
            return None
        case "waiting":
            return "waits although its payer has a customer" if payer_has_customer else None
        case state:
            return f"is still {state}"


def _accounts(evidence: Evidence) -> Iterator[Finding]:
    """Each account has one customer, and the ledger knows it."""
    for account in evidence.profiles:
        if account not in evidence.accounts:
            yield Finding(Violation.UNACCOUNTED, f"account {account} cannot be billed yet")
    for account, count in Counter(evidence.customers.values()).items():
        if count > 1:
            what = f"account {account} has {count} customers at Stripe"
            yield Finding(Violation.UNACCOUNTED, what)


def dead_letters_to_move(evidence: Evidence) -> Sequence[str]:
    """Count the dead letters that have no fault in their message, by queue and reason.

    They are accounted for, but a person has to move them back.
    """
    reasons = {"attempts_spent", "crashed_consumer", "by the broker"}
    found = Counter(
        (each.queue, each.reason) for each in evidence.dead_letters if each.reason in reasons
    )
    return [f"{queue}: {reason} {count}" for (queue, reason), count in sorted(found.items())]
