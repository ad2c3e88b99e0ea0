"""The HTTP server: requests, answers, and the faults of connections."""

import json
import socket
import struct
from http import HTTPStatus
from urllib.parse import parse_qsl

from aiohttp import web

from stripe_emulator.account import StripeAccount
from stripe_emulator.answers import HttpAnswer
from stripe_emulator.errors import StripeError, not_utf8, wrong_content_type
from stripe_emulator.event_log import API_VERSION
from stripe_emulator.faults import Fault, FaultKind
from stripe_emulator.forms import Form, decode
from stripe_emulator.ids import new_id
from stripe_emulator.inspection import inspection_routes
from stripe_emulator.pipeline import Call, Outcome, Pipeline
from stripe_emulator.webhook_inspection import webhook_routes
from stripe_emulator.webhook_sender import WebhookSender

_FORM = "application/x-www-form-urlencoded"
_HTML_503 = b"<html><head><title>503 Service Unavailable</title></head><body></body></html>"


def application(account: StripeAccount, sender: WebhookSender) -> web.Application:
    """Build the web application: the API under ``/v1``, the inspection under ``/_emulator``."""
    app = web.Application()
    app.add_routes([*inspection_routes(account), *webhook_routes(account, sender)])
    app.router.add_route("*", "/{path:.*}", _Handler(account).handle)
    return app


class _Handler:
    def __init__(self, account: StripeAccount) -> None:
        self._pipeline = Pipeline(account)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        request_id = new_id("req")
        try:
            outcome = await self._pipeline.handle(await _call(request, request_id))
        except StripeError as unreadable:
            outcome = Outcome(HttpAnswer.of(unreadable))
        headers = _headers(request, request_id, outcome.answer)
        match outcome.wire:
            case FaultKind.RESET:
                return _reset(request)
            case FaultKind.TRUNCATED:
                return await _truncated(request, outcome.answer, headers)
            case FaultKind.HTML_503:
                return web.Response(status=503, body=_HTML_503, content_type="text/html")
            case FaultKind.FOREIGN:
                return _foreign(outcome.fault, headers)
            case _:
                return web.Response(
                    status=outcome.answer.status, body=_body(outcome.answer), headers=headers
                )


def _foreign(fault: Fault | None, headers: dict[str, str]) -> web.StreamResponse:
    assert fault is not None
    kept = {"Request-Id": headers["Request-Id"]} if fault.request_id else {}
    kept["Content-Type"] = fault.content_type
    return web.Response(status=fault.status, body=fault.body.encode(), headers=kept)


async def _call(request: web.Request, request_id: str) -> Call:
    return Call(
        request_id=request_id,
        method=request.method,
        path=request.path,
        form=await _form(request),
        authorization=request.headers.get("Authorization"),
        idempotency_key=request.headers.get("Idempotency-Key") or None,
    )


async def _form(request: web.Request) -> Form:
    body = await request.read()
    if body and request.content_type != _FORM:
        raise wrong_content_type()
    try:
        written = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise not_utf8() from error
    return decode([*request.query.items(), *written])


def _headers(request: web.Request, request_id: str, answer: HttpAnswer) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Request-Id": request_id,
        "Stripe-Version": request.headers.get("Stripe-Version", API_VERSION),
    }
    key = request.headers.get("Idempotency-Key")
    if key and request.method == "POST":
        headers |= {"Idempotency-Key": key, "Original-Request": request_id}
    if answer.status == HTTPStatus.UNAUTHORIZED:
        # The only answer of the live API without a Request-Id.
        del headers["Request-Id"]
    return {**headers, **answer.headers}


def _body(answer: HttpAnswer) -> bytes:
    return json.dumps(answer.body).encode()


def _reset(request: web.Request) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        # With SO_LINGER of zero seconds the kernel sends a reset instead of a FIN.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
    return web.Response()


async def _truncated(
    request: web.Request, answer: HttpAnswer, headers: dict[str, str]
) -> web.StreamResponse:
    body = _body(answer)
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
