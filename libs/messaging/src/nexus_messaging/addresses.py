"""Lists of hosts in the URLs of brokers and databases: ``scheme://login@h1:1,h2:2/path?query``.

The form is libpq's (https://www.postgresql.org/docs/current/libpq-connect.html, "Specifying
Multiple Hosts"): each host may have a port of its own, and one without has the scheme's.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from typing_extensions import override

DEFAULT_PORTS: Final = {"amqp": 5672, "amqps": 5671, "postgres": 5432, "postgresql": 5432}
MAX_PORT: Final = 65535

_URL: Final = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<login>[^/?#\s]*@)?(?P<hosts>[^/?#@\s]+)(?P<rest>(?:[/?][^#\s]*)?)"
)
_LABEL: Final = "[a-zA-Z0-9_-]{1,63}"
_NAME: Final = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_HOST: Final = re.compile(
    rf"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<name>{_NAME}))(?::(?P<port>[0-9]{{0,5}}))?"
)


class AddressError(ValueError):
    """A URL has no valid list of hosts; the text repeats no part of the URL."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host of a list: a name or an IP address without brackets, and a TCP port."""

    name: str
    port: int

    @override
    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def hosts_of(url: str) -> tuple[Host, ...]:
    """Return the hosts of ``url`` in their order; there is at least one.

    Raises:
        AddressError: it is no such URL, or says which of its hosts is none.
    """
    parts = _parse(url)
    return hosts_in(parts["hosts"], DEFAULT_PORTS[parts["scheme"]])


def hosts_in(text: str, default_port: int) -> tuple[Host, ...]:
    """Return the hosts of a list without a URL around it: ``h1:1,h2``.

    Raises:
        AddressError: it says which of its hosts is none.
    """
    return tuple(
        _host(each, default_port, number) for number, each in enumerate(text.split(","), 1)
    )


def url_of(url: str, host: Host) -> str:
    """Return ``url`` with ``host`` as its only one; login, path and query stay as they are.

    Raises:
        AddressError: it is no such URL.
    """
    parts = _parse(url)
    return f"{parts['scheme']}://{parts['login'] or ''}{host}{parts['rest']}"


def _parse(url: str) -> re.Match[str]:
    parts = _URL.fullmatch(url)
    if (
        parts is None
        or parts["scheme"] not in DEFAULT_PORTS
        or (parts["login"] is None and "@" in parts["rest"])
    ):
        raise AddressError("is no address; are special characters in its password quoted?")
    return parts


def _host(text: str, default_port: int, number: int) -> Host:
    parts = _HOST.fullmatch(text)
    if parts is None or not _is_host(parts) or not _is_port(parts["port"]):
        raise AddressError(f"host {number} of its list is no `host:port`")
    return Host(parts["ipv6"] or parts["name"], int(parts["port"] or default_port))


def _is_host(parts: re.Match[str]) -> bool:
    try:
        return parts["ipv6"] is None or bool(IPv6Address(parts["ipv6"]))
    except AddressValueError:
        return False


def _is_port(text: str | None) -> bool:
    return not text or 1 <= int(text) <= MAX_PORT


def require_scheme(url: str, *schemes: str) -> None:
    """Raise ValueError unless ``url`` begins with one of ``schemes``, such as ``amqp://``."""
    if not url.startswith(schemes):
        raise ValueError(f"must begin with {' or '.join(schemes)}")
