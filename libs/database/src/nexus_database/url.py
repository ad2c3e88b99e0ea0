"""Reads ``DATABASE_URL``: libpq's form of a URL, with the parameters that the services support.

An unsupported parameter is refused by name, because ignoring it could weaken security
 (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from nexus_messaging.addresses import DEFAULT_PORTS, Host, hosts_in, hosts_of, url_of

CONNECT_SECONDS: Final = 5
"""The time limit for each address of each host, unless ``connect_timeout`` sets another."""

MAX_CONNECT_SECONDS: Final = 60
"""The longest ``connect_timeout``."""

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
"""Parameters that the driver reads."""

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

SESSION: Final = frozenset({"application_name", "options"})
"""Parameters that the server reads."""

ACCEPTED_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("auto", "utf8", "UTF8"),
    "gssencmode": ("disable", "prefer"),
    "keepalives": ("1",),
    "load_balance_hosts": ("disable",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "target_session_attrs": ("read-write", "primary", "any"),
}
"""Parameters with the values that match what the services do in any case."""

POOLER: Final = "pgbouncer"
"""Not a parameter of libpq: some providers mark the URL of a transaction-mode pooler with it."""

IGNORED: Final = frozenset({POOLER, "fallback_application_name", "prepared_statement_cache_size"})
"""Parameters without effect: the services set a name, and the cache size matters only with a
transaction-mode pooler."""


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """The hosts of a database, in the order of connection attempts, and the session's options."""

    hosts: tuple[Host, ...]
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    database: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] = field(default_factory=dict, repr=False)
    session: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_seconds: float = CONNECT_SECONDS

    @classmethod
    def of(cls, url: str) -> "DatabaseUrl":
        """Read ``url``; parameters in its query override its other parts, as in libpq.

        Raises:
            ValueError: the URL or a parameter is not supported; the text quotes no value.
        """
        hosts = hosts_of(url)
        parts = urlsplit(url_of(url, hosts[0]))
        parameters = dict(_split_query(parts.query))
        parsed = cls(
            hosts=_read_hosts(parameters.pop("host", ""), parameters.pop("port", "")) or hosts,
            user=parameters.pop("user", None) or unquote(parts.username or "") or None,
            password=parameters.pop("password", None) or unquote(parts.password or "") or None,
            database=parameters.pop("dbname", None) or unquote(parts.path[1:]) or None,
            tls=_take_tls(parameters),
            session={name: parameters.pop(name) for name in SESSION if name in parameters},
            connect_seconds=_read_seconds(parameters.pop("connect_timeout", str(CONNECT_SECONDS))),
        )
        for name, value in parameters.items():
            _require_supported(name, value)
        return parsed


def _require_supported(name: str, value: str) -> None:
    if name == POOLER and value.lower() != "false":
        raise ValueError(
            "pgbouncer: no pooler in transaction mode keeps prepared statements; take the server's"
            " own address, or a pooler in session mode"
        )
    if name in ACCEPTED_VALUES and value not in ACCEPTED_VALUES[name]:
        raise ValueError(f"{name}: can only be {' or '.join(ACCEPTED_VALUES[name])}")
    if name not in {*ACCEPTED_VALUES, *IGNORED}:
        shown_name = name if name.isidentifier() and name.islower() else "one of them"
        raise ValueError(f"its parameters: {shown_name} is not known")


def _split_query(query: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of ``query``; join all hosts to one list, and all ports."""
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


def _read_hosts(names: str, ports: str) -> tuple[Host, ...]:
    """Return the hosts in the parameter ``host``; a host may be a folder of sockets."""
    if not names:
        if ports:
            raise ValueError("port: belongs behind its host")
        return ()
    each_name, each_port = names.split(","), ports.split(",")
    if len(each_port) == 1:
        each_port *= len(each_name)
    if len(each_port) != len(each_name):
        raise ValueError("port: there must be one, or one for each host")
    return tuple(map(_read_host, each_name, each_port))


def _read_host(name: str, port: str) -> Host:
    socket = name.startswith("/")
    text = "socket" if socket else name
    [host] = hosts_in(f"{text}:{port}" if port else text, DEFAULT_PORTS["postgresql"])
    return Host(name, host.port) if socket else host


def _take_tls(parameters: dict[str, str]) -> dict[str, str]:
    tls = {name: parameters.pop(name) for name in TLS if name in parameters}
    if tls.get("sslmode", "prefer") not in SSL_MODES:
        raise ValueError(f"sslmode: must be one of {', '.join(SSL_MODES)}")
    return tls


def _read_seconds(text: str) -> float:
    if not (re.fullmatch("[0-9]{1,3}", text) and 1 <= int(text) <= MAX_CONNECT_SECONDS):
        raise ValueError(f"connect_timeout: must be 1 to {MAX_CONNECT_SECONDS} seconds")
    return float(text)
