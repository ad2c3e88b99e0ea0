"""What ``DATABASE_URL`` asks for: libpq's form of a URL, as far as the services can keep it.

A parameter that can't be kept is refused by name: one that was left out in silence may have been
about security (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from nexus_messaging.addresses import DEFAULT_PORTS, Host, hosts_in, hosts_of, url_of

CONNECT_SECONDS: Final = 5
"""How long each address of each host may take to answer, if ``connect_timeout`` does not say."""

LONGEST_CONNECT_SECONDS: Final = 60

TLS: Final = frozenset(
    {
        "sslmode",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "sslcrl",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "krbsrvname",
        "gsslib",
        "passfile",
    }
)
"""Parameters that the driver reads itself."""

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

SESSION: Final = frozenset({"application_name", "options"})
"""Parameters that the server reads."""

KEPT_ANYWAY: Final[Mapping[str, tuple[str, ...]]] = {
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("auto", "utf8", "UTF8"),
    "gssencmode": ("disable", "prefer"),
    "keepalives": ("1",),
    "load_balance_hosts": ("disable",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "target_session_attrs": ("read-write", "primary", "any"),
}
"""Parameters of which these values ask for nothing more than what is done anyway."""

POOLER: Final = "pgbouncer"
"""Not libpq's: some providers mark the URL of a pooler in transaction mode with it."""

IGNORED: Final = frozenset({POOLER, "fallback_application_name", "prepared_statement_cache_size"})
"""What changes nothing here: the name is given, and the size was for poolers by transaction."""


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A database's hosts, in the order in which they are tried, and what a session there needs."""

    hosts: tuple[Host, ...]
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    database: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] = field(default_factory=dict, repr=False)
    session: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_seconds: float = CONNECT_SECONDS

    @classmethod
    def of(cls, url: str) -> "DatabaseUrl":
        """Read ``url``; parameters in its query go before its other parts, as in libpq.

        Raises:
            ValueError: it is no such URL, or asks for what can't be kept; no value is repeated.
        """
        hosts = hosts_of(url)
        parts = urlsplit(url_of(url, hosts[0]))
        asked = dict(_parameters(parts.query))
        read = cls(
            hosts=_hosts(asked.pop("host", ""), asked.pop("port", "")) or hosts,
            user=asked.pop("user", None) or unquote(parts.username or "") or None,
            password=asked.pop("password", None) or unquote(parts.password or "") or None,
            database=asked.pop("dbname", None) or unquote(parts.path[1:]) or None,
            tls=_tls(asked),
            session={name: asked.pop(name) for name in SESSION if name in asked},
            connect_seconds=_seconds(asked.pop("connect_timeout", str(CONNECT_SECONDS))),
        )
        for name, value in asked.items():
            _require_kept_anyway(name, value)
        return read


def _require_kept_anyway(name: str, value: str) -> None:
    if name == POOLER and value.lower() != "false":
        raise ValueError(
            "pgbouncer: no pooler in transaction mode keeps prepared statements; take the server's"
            " own address, or a pooler in session mode"
        )
    if name in KEPT_ANYWAY and value not in KEPT_ANYWAY[name]:
        raise ValueError(f"{name}: can only be {' or '.join(KEPT_ANYWAY[name])}")
    if name not in {*KEPT_ANYWAY, *IGNORED}:
        shown = name if name.isidentifier() and name.islower() else "one of them"
        raise ValueError(f"its parameters: {shown} is not known")


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of ``query``, hosts and ports joined to one list each."""
    lists: dict[str, list[str]] = {"host": [], "port": []}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError("its parameters: are no name=value joined by &")
        if name in lists:
            lists[name].append(unquote(value))
        else:
            yield ("sslmode" if name == "ssl" else name), unquote(value)
    yield from ((name, ",".join(values)) for name, values in lists.items() if values)


def _hosts(names: str, ports: str) -> tuple[Host, ...]:
    """Return the hosts of the parameter ``host``, each of which may be a folder of sockets."""
    if not names:
        if ports:
            raise ValueError("port: belongs behind its host")
        return ()
    each_name, each_port = names.split(","), ports.split(",")
    if len(each_port) == 1:
        each_port *= len(each_name)
    if len(each_port) != len(each_name):
        raise ValueError("port: there must be one, or one for each host")
    return tuple(map(_host, each_name, each_port))


def _host(name: str, port: str) -> Host:
    socket = name.startswith("/")
    text = "socket" if socket else name
    [host] = hosts_in(f"{text}:{port}" if port else text, DEFAULT_PORTS["postgresql"])
    return Host(name, host.port) if socket else host


def _tls(asked: dict[str, str]) -> dict[str, str]:
    tls = {name: asked.pop(name) for name in TLS if name in asked}
    if tls.get("sslmode", "prefer") not in SSL_MODES:
        raise ValueError(f"sslmode: must be one of {', '.join(SSL_MODES)}")
    return tls


def _seconds(text: str) -> float:
    if not (re.fullmatch("[0-9]{1,3}", text) and 1 <= int(text) <= LONGEST_CONNECT_SECONDS):
        raise ValueError(f"connect_timeout: must be 1 to {LONGEST_CONNECT_SECONDS} seconds")
    return float(text)
