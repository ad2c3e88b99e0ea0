"""The way of one request through the account: key, limits, fault, idempotency, effect, answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stripe_emulator import errors
from stripe_emulator.account import Account
from stripe_emulator.answers import Answer
from stripe_emulator.api import EVENTS_PATH, Endpoint, find
from stripe_emulator.errors import StripeError
from stripe_emulator.faults import Fault, FaultKind, Target, When
from stripe_emulator.forms import Form, FormValue
from stripe_emulator.journal import RequestRecord

_WIRE = (FaultKind.RESET, FaultKind.TRUNCATED, FaultKind.HTML_503, FaultKind.FOREIGN)


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came in, its form decoded."""

    request_id: str
    method: str
    path: str
    form: Form
    authorization: str | None
    idempotency_key: str | None

    @property
    def target(self) -> Target:
        """Return what faults may be aimed at."""
        identifier = self.form.get("identifier") if self.path == EVENTS_PATH else None
        return Target(self.method, self.path, _text(identifier), self._customer())

    def _customer(self) -> str | None:
        payload = self.form.get("payload")
        if isinstance(payload, dict):
            return _text(payload.get("stripe_customer_id"))
        if self.path.startswith("/v1/customers/"):
            return self.path.split("/")[3]
        return _text(self.form.get("customer"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What goes back: an answer, and the fault that befalls it on the wire, if any does."""

    answer: Answer
    fault: Fault | None = None

    @property
    def wire(self) -> FaultKind | None:
        """Return what happens to the answer on the wire."""
        return None if self.fault is None else self.fault.kind

    @property
    def status(self) -> int | None:
        """Return the status the client gets to see, None when it sees none."""
        if self.wire is FaultKind.RESET:
            return None
        if self.fault is not None and self.fault.kind is FaultKind.FOREIGN:
            return self.fault.status
        return 503 if self.wire is FaultKind.HTML_503 else self.answer.status


class Exchange:
    """Carries requests out, one account behind them all."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._busy: set[tuple[str, str]] = set()

    async def carry_out(self, call: Call) -> Outcome:
        """Answer a request and note it in the journal."""
        record = RequestRecord(
            at=self._account.clock.now(),
            request_id=call.request_id,
            method=call.method,
            path=call.path,
            idempotency_key=call.idempotency_key,
            identifier=call.target.identifier,
        )
        self._account.journal.opened(record)
        try:
            outcome = await self._admitted(call, record)
        except StripeError as refusal:
            outcome = Outcome(Answer.of(refusal))
        record.status = outcome.status
        record.replayed = "Idempotent-Replayed" in outcome.answer.headers
        error = outcome.answer.body.get("error", {})
        record.error, record.param = error.get("code", error.get("type")), error.get("param")
        self._account.journal.closed(record)
        return outcome

    async def _admitted(self, call: Call, record: RequestRecord) -> Outcome:
        account = self._account
        endpoint, id_ = find(call.method, call.path)
        account.keys.authorize(call.authorization, endpoint.permission)
        account.limits.admit(call.path, account.options, account.clock.now())
        fault = account.faults.choose(call.target)
        if fault is not None:
            record.fault = f"{fault.kind}:{fault.when}"
        if call.idempotency_key is None or call.method != "POST":
            _, outcome = await self._executed(call, endpoint, id_, fault)
            return outcome
        return await self._executed_once(call, call.idempotency_key, endpoint, id_, fault)

    async def _executed_once(
        self, call: Call, key: str, endpoint: Endpoint, id_: str, fault: Fault | None
    ) -> Outcome:
        store = self._account.idempotency
        now = self._account.clock.now()
        replay = store.begin(key, call.path, call.form, call.request_id, now)
        if replay is not None:
            if fault is not None:
                await asyncio.sleep(fault.seconds)
            return Outcome(replay) if fault is None else spoiled(fault, replay)
        kept: Answer | None = None
        try:
            kept, outcome = await self._executed(call, endpoint, id_, fault)
        finally:
            if kept is None:
                store.release(key)
            else:
                store.finish(key, kept)
        return outcome

    async def _executed(
        self, call: Call, endpoint: Endpoint, id_: str, fault: Fault | None
    ) -> tuple[Answer | None, Outcome]:
        """Return the answer to keep under the idempotency key, if any, and what goes back."""
        params = endpoint.parameters.read(call.form)
        with self._alone(call, params):
            await self._work(call, fault)
            if fault is not None and fault.when is When.BEFORE and fault.kind != FaultKind.LATENCY:
                outcome = spoiled(fault, Answer.of(errors.server_error()))
                return (outcome.answer if _kept_error(fault) else None), outcome
            kept, answer = self._effect(endpoint, id_, params)
            if fault is None or fault.when is When.BEFORE:
                return kept, Outcome(answer)
            await asyncio.sleep(fault.seconds)
            outcome = spoiled(fault, answer)
            return (outcome.answer if _kept_error(fault) else kept), outcome

    async def _work(self, call: Call, fault: Fault | None) -> None:
        seconds = self._account.options.call_seconds if call.method == "POST" else 0.0
        if fault is not None and fault.when is When.BEFORE:
            seconds += fault.seconds
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _effect(
        self, endpoint: Endpoint, id_: str, params: dict[str, Any]
    ) -> tuple[Answer | None, Answer]:
        try:
            answer = Answer(200, endpoint.effect(self._account, id_, params))
        except StripeError as refusal:
            answer = Answer.of(refusal)
            return (answer if refusal.saved else None), answer
        return answer, answer

    @contextmanager
    def _alone(self, call: Call, params: dict[str, Any]) -> Iterator[None]:
        """Hold the customer and meter of an event, or refuse the call when another holds them."""
        if call.path != EVENTS_PATH or not self._account.options.refuse_overlaps:
            yield
            return
        meter = self._account.meters.active_for(params["event_name"])
        customer = params["payload"].get(meter.customer_key, "") if meter else ""
        lane = (params["event_name"], customer)
        if lane in self._busy:
            raise errors.overlapping_calls()
        self._busy.add(lane)
        try:
            yield
        finally:
            self._busy.discard(lane)


def spoiled(fault: Fault, answer: Answer) -> Outcome:
    """Return what a fault makes of an answer."""
    if fault.kind in _WIRE:
        return Outcome(answer, fault)
    refusal = _refusal(fault)
    return Outcome(answer if refusal is None else Answer.of(refusal))


def _refusal(fault: Fault) -> StripeError | None:
    match fault.kind:
        case FaultKind.SERVER_ERROR:
            return errors.server_error()
        case FaultKind.RATE_LIMITED:
            return errors.rate_limited(fault.reason)
        case FaultKind.LOCK_TIMEOUT:
            return errors.lock_timeout()
        case FaultKind.CONFLICT:
            return errors.overlapping_calls()
        case FaultKind.STATUS:
            return errors.with_status(fault.status)
        case _:
            return None


def _kept_error(fault: Fault) -> bool:
    # The API's own 500 is what it remembers; every other fault lies outside of what it knows.
    return fault.kind is FaultKind.SERVER_ERROR


def _text(value: FormValue | None) -> str | None:
    return value if isinstance(value, str) else None
