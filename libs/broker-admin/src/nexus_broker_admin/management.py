"""The broker's management HTTP API (https://www.rabbitmq.com/docs/http-api-reference)."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from typing_extensions import override
from yarl import URL

from nexus_broker_admin.definitions import (
    BINDINGS,
    HASHING,
    SALT_BYTES,
    USERS,
    Definitions,
    Entry,
    hash_password,
)
from nexus_broker_admin.drift import Difference
from nexus_messaging.addresses import hosts_in

DEFAULT_PORT: Final = 15672

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30)

REJECTED_AT_ONCE: Final = 25
"""Messages in one request. The broker's channel delays rejections beyond 32, and the request ends
before they are carried out: those messages would return to the queue."""


class ManagementError(Exception):
    """The management API refused a request or could not be reached; the text says what to do."""


class ManagementAddressError(ManagementError):
    """The address of the management API is unusable. It holds a password, so it is not shown."""

    @override
    def __str__(self) -> str:
        return "MANAGEMENT_URL must be of the form http://user:password@host:port"


class Management:
    """A connection to one broker's management API, with an administrator's rights."""

    def __init__(self, session: aiohttp.ClientSession, base: URL) -> None:
        self._session = session
        self._base = base

    async def definitions(self) -> Definitions:
        """Read everything the broker holds, of all vhosts.

        Raises:
            ManagementError: The broker is away, or the user is no administrator.
        """
        found: Definitions = await self._request("GET", "definitions")
        return found

    async def messages(self, vhost: str) -> Mapping[str, int]:
        """Count the messages of each queue of a vhost, unacknowledged ones included.

        Raises:
            ManagementError: The broker is away, or the user may not read the vhost.
        """
        found = await self._request("GET", "queues", vhost)
        return {entry["name"]: entry.get("messages", 0) for entry in found}

    async def connected_users(self, vhost: str) -> frozenset[str]:
        """Name the users that have a connection to a vhost.

        Raises:
            ManagementError: The broker is away, or the user may not read the vhost.
        """
        found = await self._request("GET", "vhosts", vhost, "connections")
        return frozenset(entry["user"] for entry in found if "user" in entry)

    async def repair(self, difference: Difference, passwords: Mapping[str, str]) -> None:
        """Bring one object to its description.

        Args:
            difference: One that is repairable.
            passwords: Each described user's password, by user name.

        Raises:
            ManagementError: The broker is away or refused.
        """
        kind, wanted, found = difference.kind, difference.wanted, difference.found
        if wanted is not None:
            if kind is BINDINGS:
                await self._request("POST", *_binding_list(wanted), body=wanted)
            else:
                body = _user_body(wanted, passwords) if kind is USERS else wanted
                await self._request("PUT", *kind.path_of(wanted), body=body)
        elif found is not None:
            path = await self._binding(found) if kind is BINDINGS else kind.path_of(found)
            await self._request("DELETE", *path)

    async def reject(self, vhost: str, queue: str) -> int:
        """Have the broker dead-letter what waits in ``queue`` now; return the number of messages.

        What comes in meanwhile may stay. Each message is read by a *Get* and rejected, as in the
        management UI: it is dropped if the queue has nowhere to dead-letter it to.

        Raises:
            ManagementError: The broker is away or refused.
        """
        body = {
            "count": REJECTED_AT_ONCE,
            "ackmode": "reject_requeue_false",
            "encoding": "base64",
            "truncate": 1,
        }
        rejected, waiting = 0, 1
        while rejected < waiting:
            got = await self._request("POST", "queues", vhost, queue, "get", body=body)
            if not got:
                break
            waiting = waiting if rejected else len(got) + got[-1]["message_count"]
            rejected += len(got)
        return rejected

    async def _binding(self, binding: Entry) -> tuple[str, ...]:
        """Find the path of one binding: the broker generates its last part."""
        path = _binding_list(binding)
        for entry in await self._request("GET", *path):
            if all(entry[part] == binding[part] for part in ("routing_key", "arguments")):
                return (*path, entry["properties_key"])
        raise ManagementError(f"binding {BINDINGS.name(binding)} was just removed: apply again")

    async def _request(self, method: str, *path: str, body: Entry | None = None) -> Any:
        address = "/".join(("api", *(quote(part, safe="") for part in path)))
        url = URL(f"{str(self._base).rstrip('/')}/{address}", encoded=True)
        try:
            async with self._session.request(method, url, json=body) as answer:
                if not answer.ok:
                    raise ManagementError(await _refusal(method, address, answer))
                return (
                    await answer.json(content_type=None) if answer.status == HTTPStatus.OK else None
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            cause = str(error) or type(error).__name__
            raise ManagementError(
                f"no answer from the management API at {self._base} ({cause}): "
                "check MANAGEMENT_URL and that rabbitmq_management is enabled"
            ) from error


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Management]:
    """Open a connection to the management API.

    Args:
        url: ``http://user:password@host:port``.

    Raises:
        ManagementAddressError: The address is invalid, or lacks the user or the password.
    """
    address, login = _address(url)
    headers = {"Authorization": login}
    async with aiohttp.ClientSession(headers=headers, timeout=_REQUEST_TIMEOUT) as session:
        yield Management(session, address)


def _address(url: str) -> tuple[URL, str]:
    """Return the address without its login, and the header that logs in there."""
    try:
        address = URL(url)
        hosts_in(address.host_subcomponent or "", DEFAULT_PORT)
        login = aiohttp.encode_basic_auth(address.user or "", address.password or "")
    except ValueError:
        # The parser's own message repeats the address, including its password.
        raise ManagementAddressError from None
    whole = address.user is not None and address.password is not None
    if not whole or address.scheme not in {"http", "https"}:
        raise ManagementAddressError
    return address.with_user(None), login


def _binding_list(binding: Entry) -> tuple[str, ...]:
    """Return the parts of the path of the list that a binding is in."""
    end = "q" if binding["destination_type"] == "queue" else "e"
    return (
        *("bindings", binding["vhost"], "e", binding["source"]),
        *(end, binding["destination"]),
    )


def _user_body(user: Entry, passwords: Mapping[str, str]) -> Entry:
    """Return a user as the API takes it, with a hash instead of the password."""
    return {
        "password_hash": hash_password(passwords[user["name"]], os.urandom(SALT_BYTES)),
        "hashing_algorithm": HASHING,
        "tags": ",".join(user["tags"]),
    }


async def _refusal(method: str, address: str, answer: aiohttp.ClientResponse) -> str:
    if answer.status in {401, 403} and address.endswith("/get"):
        return (
            "the broker refused the user of MANAGEMENT_URL to take messages:"
            " give it the permission to read the vhost's queues"
        )
    if answer.status in {401, 403}:
        return (
            "the broker refused the user of MANAGEMENT_URL: name an administrator and its password"
        )
    return f"the broker refused {method} /{address}: {answer.status} {(await answer.text())[:500]}"
