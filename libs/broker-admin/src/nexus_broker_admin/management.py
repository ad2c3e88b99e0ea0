"""The broker's management HTTP API: reading what a broker holds, and bringing it to a topology."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from nexus_broker_admin.definitions import BINDINGS, USERS, Definitions, Entry
from nexus_broker_admin.displacement import returns_home, tiers_held
from nexus_broker_admin.drift import Difference, compare
from nexus_broker_admin.entry_paths import binding_path, path_of, user_body
from nexus_messaging.addresses import hosts_in
from nexus_messaging.topology import VHOST, metering_topology

DEFAULT_PORT: Final = 15672

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30)

REJECTED_AT_ONCE: Final = 25
"""Messages in one request. The broker's channel keeps rejections beyond 32 for later, and a request
ends before that: those would come back into the queue."""


class ManagementError(Exception):
    """The management API refused a request or could not be reached; the text says what to do."""


class ManagementAddressError(ManagementError):
    """The address of the management API is unusable; it holds a password and is not repeated."""

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
        """Count the messages of each queue of a vhost, with those in consumers' hands.

        Raises:
            ManagementError: The broker is away, or the user may not look at the vhost.
        """
        found = await self._request("GET", "queues", vhost)
        return {entry["name"]: entry.get("messages", 0) for entry in found}

    async def connected_users(self, vhost: str) -> frozenset[str]:
        """Name the users that have a connection to a vhost.

        Raises:
            ManagementError: The broker is away, or the user may not look at the vhost.
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
                await self._request("POST", *binding_path(wanted), body=wanted)
            else:
                body = user_body(wanted, passwords) if kind is USERS else wanted
                await self._request("PUT", *path_of(kind, wanted), body=body)
        elif found is not None:
            path = await self._binding(found) if kind is BINDINGS else path_of(kind, found)
            await self._request("DELETE", *path)

    async def reject(self, vhost: str, queue: str) -> int:
        """Have the broker dead-letter what waits in ``queue`` now; return how many it took.

        What comes in meanwhile may stay. Each message is taken by a *Get* and rejected, as the
        management UI does it: where nothing catches what the queue dead-letters, it is dropped.

        Raises:
            ManagementError: The broker is away or refused.
        """
        body = {
            "count": REJECTED_AT_ONCE,
            "ackmode": "reject_requeue_false",
            "encoding": "base64",
            "truncate": 1,
        }
        taken, waiting = 0, 1
        while taken < waiting:
            got = await self._request("POST", "queues", vhost, queue, "get", body=body)
            if not got:
                break
            waiting = waiting if taken else len(got) + got[-1]["message_count"]
            taken += len(got)
        return taken

    async def _binding(self, binding: Entry) -> tuple[str, ...]:
        """Find where one binding lives: the broker makes up the last part of its path."""
        path = binding_path(binding)
        for entry in await self._request("GET", *path):
            if all(entry[part] == binding[part] for part in ("routing_key", "arguments")):
                return (*path, entry["properties_key"])
        raise ManagementError(f"binding {BINDINGS.name(binding)} went away meanwhile: apply again")

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
        ManagementAddressError: The address is none, or lacks the user or the password.
    """
    address, login = _address(url)
    headers = {"Authorization": login}
    async with aiohttp.ClientSession(headers=headers, timeout=_REQUEST_TIMEOUT) as session:
        yield Management(session, address)


async def read_drift(
    management: Management,
    passwords: Mapping[str, str],
    *,
    vhost: str = VHOST,
    tier_scale: float = 1.0,
) -> tuple[Difference, ...]:
    """List what separates a broker from its description.

    Args:
        management: The broker.
        passwords: Described users' passwords, by user name; the others' are not compared.
        vhost: Where the topology lives.
        tier_scale: Multiplies the tiers' waits.

    Raises:
        ManagementError: The broker is away or refused.
    """
    found = await management.definitions()
    topology = metering_topology(vhost, tier_scale, found["rabbitmq_version"])
    return compare(topology, found, passwords)


async def apply_topology(
    management: Management,
    passwords: Mapping[str, str],
    *,
    vhost: str = VHOST,
    tier_scale: float = 1.0,
    on_change: Callable[[Difference], None] = lambda _: None,
    on_drain: Callable[[str, int], None] = lambda _tier, _messages: None,
) -> tuple[Difference, ...]:
    """Bring a broker to its description, and return what could not be changed or is foreign.

    Nothing that may hold messages is ever deleted. A retry tier whose wait was mended is drained,
    as ``drain`` says why. Safe to repeat and to interrupt.

    Args:
        management: The broker.
        passwords: Each described user's password, by user name.
        vhost: Where the topology lives; made if missing.
        tier_scale: Multiplies the tiers' waits.
        on_change: Called after each change.
        on_drain: Called with each drained tier and how many messages it held.

    Raises:
        ManagementError: The broker is away or refused.
    """
    before = await management.definitions()
    topology = metering_topology(vhost, tier_scale, before["rabbitmq_version"])
    differences = compare(topology, before, passwords)
    for difference in differences:
        if difference.repairable:
            await management.repair(difference, passwords)
            on_change(difference)
    if held := tiers_held(topology, before):
        after = await management.definitions()
        for tier in held:
            if returns_home(tier, vhost, after) and (
                messages := await management.reject(vhost, tier)
            ):
                on_drain(tier, messages)
    return tuple(difference for difference in differences if not difference.repairable)


async def drain(management: Management, tier: str, *, vhost: str = VHOST) -> int:
    """Send what waits in a retry tier home now, as if its wait were over; return how many.

    A message that came into the tier while no wait was in force never leaves by itself, and all
    behind it wait with it: mending the policy reaches only what comes in later.

    Raises:
        ManagementError: The broker is away or refused, or would drop what it takes from the tier.
    """
    if not returns_home(tier, vhost, await management.definitions()):
        raise ManagementError(
            f"{tier} does not send home what is taken from it: run nexus-topology apply first"
        )
    return await management.reject(vhost, tier)


def _address(url: str) -> tuple[URL, str]:
    """Return the address without its login, and the header that logs in there."""
    try:
        address = URL(url)
        hosts_in(address.host_subcomponent or "", DEFAULT_PORT)
        login = aiohttp.encode_basic_auth(address.user or "", address.password or "")
    except ValueError:
        # The parser's own message repeats the address, password and all.
        raise ManagementAddressError from None
    whole = address.user is not None and address.password is not None
    if not whole or address.scheme not in {"http", "https"}:
        raise ManagementAddressError
    return address.with_user(None), login


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
