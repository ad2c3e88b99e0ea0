"""Values that DATABASE_URL supports, and errors for all others."""

import pytest

from nexus_database.url import DatabaseUrl
from nexus_messaging.addresses import Host


def test_url_gives_login_hosts_and_session_options() -> None:
    """Quoted characters are decoded; each parameter goes to its consumer."""
    url = DatabaseUrl.of(
        "postgresql://r%40le:p%2Fw%2C@h1:1,h2/d%20b?sslmode=verify-full&sslrootcert=/ca.pem"
        "&application_name=mine&options=-c%20search_path%3Dx&connect_timeout=2"
    )

    assert url.hosts == (Host("h1", 1), Host("h2", 5432))
    assert (url.user, url.password, url.database) == ("r@le", "p/w,", "d b")
    assert url.tls == {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
    assert url.session == {"application_name": "mine", "options": "-c search_path=x"}
    assert url.connect_seconds == 2


def test_parameters_override_other_parts() -> None:
    """As in libpq; the driver's form of several hosts is supported too."""
    url = DatabaseUrl.of(
        "postgresql://u:p@h/d?user=v&password=q&dbname=e&host=a:1&host=b&ssl=allow"
    )

    assert (url.user, url.password, url.database) == ("v", "q", "e")
    assert url.hosts == (Host("a", 1), Host("b", 5432))
    assert url.tls == {"sslmode": "allow"}


@pytest.mark.parametrize(
    ("query", "hosts"),
    [
        ("host=a,b&port=1,2", (Host("a", 1), Host("b", 2))),
        ("host=a,b&port=7", (Host("a", 7), Host("b", 7))),
        ("host=/run/postgresql", (Host("/run/postgresql", 5432),)),
        ("host=/run/postgresql,b&port=7", (Host("/run/postgresql", 7), Host("b", 7))),
    ],
)
def test_hosts_may_be_parameters(query: str, hosts: tuple[Host, ...]) -> None:
    """It is the only way to name a folder of sockets."""
    assert DatabaseUrl.of(f"postgresql://u:p@h/d?{query}").hosts == hosts


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer",
        "target_session_attrs=read-write",
        "gssencmode=disable",
        "pgbouncer=false",
        "fallback_application_name=x",
        "client_encoding=utf8",
        "prepared_statement_cache_size=0",
        "",
    ],
)
def test_parameter_with_supported_value_is_accepted(query: str) -> None:
    """URLs of hosting providers contain such parameters."""
    assert DatabaseUrl.of(f"postgresql://u:p@h/d?{query}").hosts == (Host("h", 5432),)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("channel_binding=require", "channel_binding: can only be disable or prefer"),
        (
            "target_session_attrs=standby",
            "target_session_attrs: can only be read-write or primary or any",
        ),
        ("pgbouncer=true", "pgbouncer: no pooler in transaction mode keeps prepared statements"),
        ("connect_timeout=0", "connect_timeout: must be 1 to 60 seconds"),
        ("connect_timeout=s3cret", "connect_timeout: must be 1 to 60 seconds"),
        ("sslmode=s3cret", "sslmode: must be one of disable, allow, prefer, require"),
        ("statement_timeout=5", "its parameters: statement_timeout is not known"),
        ("S3cret=5", "its parameters: one of them is not known"),
        ("s3cret", "its parameters: are no name=value joined by &"),
        ("port=5433", "port: belongs behind its host"),
        ("host=a,b&port=1,2,3", "port: there must be one, or one for each host"),
        ("host=a,b&port=1,s3cret", "host 1 of its list is no"),
        ("host=a:1&port=2", "host 1 of its list is no"),
    ],
)
def test_unsupported_parameter_is_refused_by_name(query: str, error: str) -> None:
    """Ignoring it could weaken security; the error quotes no value."""
    with pytest.raises(ValueError, match=rf"^{error}") as caught:
        DatabaseUrl.of(f"postgresql://u:hunter2@h/d?{query}")

    assert "s3cret" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_repr_contains_no_value() -> None:
    """Tracebacks show it."""
    url = DatabaseUrl.of("postgresql://u:hunter2@h/d?sslpassword=hunter2&options=hunter2")

    assert "hunter2" not in repr(url)
