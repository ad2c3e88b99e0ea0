"""Lists of hosts in one URL, as libpq reads them."""

import pytest

from nexus_messaging.addresses import AddressError, Host, hosts_of, url_of


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("amqp://u:p@h:5673/v", (Host("h", 5673),)),
        ("amqp://u:p@h1,h2:5673/v", (Host("h1", 5672), Host("h2", 5673))),
        ("amqps://h1:,h2", (Host("h1", 5671), Host("h2", 5671))),
        ("postgresql://u:p@a,b:5432/d", (Host("a", 5432), Host("b", 5432))),
        ("postgres://u:a,b@127.0.0.1/d", (Host("127.0.0.1", 5432),)),
        ("postgresql://u:a@b@[::1]:1,h2:2/d?x=@", (Host("::1", 1), Host("h2", 2))),
    ],
)
def test_url_with_hosts_gives_each_with_its_port(url: str, hosts: tuple[Host, ...]) -> None:
    """A host without a port has the scheme's, whatever its neighbours say."""
    assert hosts_of(url) == hosts


@pytest.mark.parametrize(
    ("hosts", "named"),
    [
        ("h1,,h2", 2),
        ("h1,", 2),
        (",h1", 1),
        ("h1:0", 1),
        ("h1:1,h2:65536", 2),
        ("h1:port", 1),
        ("h1:1:2", 1),
        ("[::1", 1),
        ("[:::]", 1),
        ("::1", 1),
        ("h%31", 1),
        ("h1:1,h..x", 2),
        ("h" * 64, 1),
        ("h:٣", 1),
    ],
)
def test_list_with_an_invalid_host_names_its_number(hosts: str, named: int) -> None:
    """The person who reads the error knows the list; the error repeats nothing of it."""
    with pytest.raises(AddressError) as caught:
        hosts_of(f"amqp://u:s3cret@{hosts}/v")

    assert str(caught.value) == f"host {named} of its list is no `host:port`"


@pytest.mark.parametrize(
    "url",
    [
        "amqp:///v",
        "amqp://u:s3cret@/v",
        "http://h/",
        "AMQP://h/",
        "amqp://u:12/34@h/v",
        "amqp://u:12#34@h/v",
        "amqp://u:12?34@h/v",
        "amqp://h/v#w",
        "amqp://h /v",
        "amqp://h/v\n",
        "h:5672",
        "",
    ],
)
def test_text_that_is_no_url_is_refused_without_its_value(url: str) -> None:
    """A password with an unquoted special character would else name another host."""
    with pytest.raises(AddressError, match=r"^is no address; are special characters in") as caught:
        hosts_of(url)

    assert "s3cret" not in str(caught.value)


def test_url_of_one_host_keeps_login_path_and_query() -> None:
    """What is quoted stays quoted."""
    url = "amqps://u:p%40%2C@h1:1,h2:2/%2F?heartbeat=10"

    assert [url_of(url, host) for host in (*hosts_of(url), Host("::1", 3))] == [
        "amqps://u:p%40%2C@h1:1/%2F?heartbeat=10",
        "amqps://u:p%40%2C@h2:2/%2F?heartbeat=10",
        "amqps://u:p%40%2C@[::1]:3/%2F?heartbeat=10",
    ]


def test_host_is_written_as_a_url_has_it() -> None:
    """An IPv6 address keeps its colons apart from the port's."""
    assert [str(Host("h", 1)), str(Host("::1", 1))] == ["h:1", "[::1]:1"]
