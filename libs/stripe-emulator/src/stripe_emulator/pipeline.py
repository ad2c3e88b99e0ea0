"""The steps of one request: key, rate limits, fault, idempotency, effect, answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stripe_emulator import errors
from stripe_emulator.account import StripeAccount
from stripe_emulator.answers import HttpAnswer
from stripe_emulator.api import EVENTS_PATH, find
from stripe_emulator.endpoints import Endpoint
from stripe_emulator.errors import StripeError
from stripe_emulator.expansion import expanded, require_expandable
from stripe_emulator.faults import Fault, FaultKind, Target, When
from stripe_emulator.forms import Form, FormValue
from stripe_emulator.parameters import Texts
from stripe_emulator.request_log import RequestRecord

_CONNECTION_FAULTS = (FaultKind.RESET, FaultKind.TRUNCATED, FaultKind.HTML_503, FaultKind.FOREIGN)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, with its form decoded."""

    request_id: str
    method: str
    path: str
    form: Form
    authorization: str | None
    idempotency_key: str | None

    @property
    def target(self) -> Target:
        """Return what the conditions of faults are compared with."""
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
    """The answer to a request, and the fault of its connection, if there is one."""

    answer: HttpAnswer
    fault: Fault | None = None

    @property
    def wire(self) -> FaultKind | None:
        """Return the kind of the connection's fault."""
        return None if self.fault is None else self.fault.kind

    @property
    def status(self) -> int | None:
        """Return the status that the client receives, None if it receives none."""
        if self.wire is FaultKind.RESET:
            return None
        if self.fault is not None and self.fault.kind is FaultKind.FOREIGN:
            return self.fault.status
        return 503 if self.wire is FaultKind.HTML_503 else self.answer.status


class Pipeline:
    """Handles the requests to one account."""

    def __init__(self, account: StripeAccount) -> None:
        self._account = account
        self._locked: set[tuple[str, str]] = set()

    async def handle(self, call: Call) -> Outcome:
        """Answer a request and log it."""
        record = RequestRecord(
            at=self._account.clock.now(),
            request_id=call.request_id,
            method=call.method,
            path=call.path,
            idempotency_key=call.idempotency_key,
            identifier=call.target.identifier,
        )
        self._account.request_log.begin(record)
        try:
            outcome = await self._admit(call, record)
        except StripeError as refusal:
            outcome = Outcome(HttpAnswer.of(refusal))
        record.status = outcome.status
        record.replayed = "Idempotent-Replayed" in outcome.answer.headers
        error = outcome.answer.body.get("error", {})
        record.error, record.param = error.get("code", error.get("type")), error.get("param")
        self._account.request_log.finish(record)
        return outcome

    async def _admit(self, call: Call, record: RequestRecord) -> Outcome:
        account = self._account
        account.settle()
        endpoint, ids = find(call.method, call.path)
        account.keys.authorize(call.authorization, endpoint.permission)
        account.limits.admit(call.path, account.options, account.clock.now())
        fault = account.faults.choose(call.target)
        if fault is not None:
            record.fault = f"{fault.kind}:{fault.when}"
        if call.idempotency_key is None or call.method != "POST":
            _, outcome = await self._execute(call, endpoint, ids, fault)
            return outcome
        return await self._execute_once(call, call.idempotency_key, endpoint, ids, fault)

    async def _execute_once(
        self, call: Call, key: str, endpoint: Endpoint, ids: dict[str, str], fault: Fault | None
    ) -> Outcome:
        store = self._account.idempotency
        now = self._account.clock.now()
        replay = store.begin(key, call.path, call.form, call.request_id, now)
        if replay is not None:
            if fault is not None:
                await asyncio.sleep(fault.seconds)
            return Outcome(replay) if fault is None else apply_fault(fault, replay)
        kept: HttpAnswer | None = None
        try:
            kept, outcome = await self._execute(call, endpoint, ids, fault)
        finally:
            if kept is None:
                store.release(key)
            else:
                store.finish(key, kept)
        return outcome

    async def _execute(
        self, call: Call, endpoint: Endpoint, ids: dict[str, str], fault: Fault | None
    ) -> tuple[HttpAnswer | None, Outcome]:
        """Return the answer to keep under the idempotency key, if any, and the outcome."""
        params = endpoint.parameters.read(call.form)
        paths = Texts().read(call.form.get("expand", []), "expand")
        require_expandable(paths, endpoint.expandable)
        with self._exclusive(call, params):
            await self._work(call, fault)
            if fault is not None and fault.when is When.BEFORE and fault.kind != FaultKind.LATENCY:
                outcome = apply_fault(fault, HttpAnswer.of(errors.server_error()))
                return (outcome.answer if _kept_error(fault) else None), outcome
            if call.path == EVENTS_PATH:
                params["idempotency_key"] = call.idempotency_key
            kept, answer = self._effect(endpoint, ids, params, paths)
            if fault is None or fault.when is When.BEFORE:
                return kept, Outcome(answer)
            await asyncio.sleep(fault.seconds)
            outcome = apply_fault(fault, answer)
            return (outcome.answer if _kept_error(fault) else kept), outcome

    async def _work(self, call: Call, fault: Fault | None) -> None:
        seconds = self._account.options.call_seconds if call.method == "POST" else 0.0
        if fault is not None and fault.when is When.BEFORE:
            seconds += fault.seconds
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _effect(
        self, endpoint: Endpoint, ids: dict[str, str], params: dict[str, Any], paths: list[str]
    ) -> tuple[HttpAnswer | None, HttpAnswer]:
        try:
            id_ = ids.pop("id", "")
            body = endpoint.effect(self._account, id_, params | ids)
            if endpoint.expandable:
                body = expanded(body, paths, self._account.retrievals())
            answer = HttpAnswer(200, body)
        except StripeError as refusal:
            answer = HttpAnswer.of(refusal)
            return (answer if refusal.saved else None), answer
        return answer, answer

    @contextmanager
    def _exclusive(self, call: Call, params: dict[str, Any]) -> Iterator[None]:
        """Lock the customer and meter of an event, or refuse the call if another has the lock."""
        if call.path != EVENTS_PATH or not self._account.options.refuse_overlaps:
            yield
            return
        meter = self._account.meters.active_for(params["event_name"])
        customer = params["payload"].get(meter.customer_key, "") if meter else ""
        pair = (params["event_name"], customer)
        if pair in self._locked:
            raise errors.overlapping_calls()
        self._locked.add(pair)
        try:
            yield
        finally:
            self._locked.discard(pair)


def apply_fault(fault: Fault, answer: HttpAnswer) -> Outcome:
    """Return the outcome that a fault makes of an answer."""
    if fault.kind in _CONNECTION_FAULTS:
        return Outcome(answer, fault)
    refusal = _refusal(fault)
    return Outcome(answer if refusal is None else HttpAnswer.of(refusal))


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
    # Stripe keeps its own 500s; every other fault happens outside of its API.
    return fault.kind is FaultKind.SERVER_ERROR


def _text(value: FormValue | None) -> str | None:
    return value if isinstance(value, str) else None
