"""Who may use the HTTP API, and for what."""

from hashlib import sha256
from typing import Any

import pytest

from nexus_service.api_keys import ApiKey, key_of, make_api_key, read_api_keys

DIGEST = sha256(b"open sesame").hexdigest()


def keys(text: str) -> tuple[ApiKey, ...]:
    """Read keys as the settings do."""
    read: Any = read_api_keys(text)
    return tuple(read)


def test_keys_are_read_with_their_sources_and_types() -> None:
    """Commas separate keys, | separates sources and types, and a source may have colons."""
    read = keys(f"hub:{DIGEST}:urn:acme:hub|web:user.created, any:{DIGEST.upper()}:*:*")

    assert read == (
        ApiKey("hub", DIGEST, ("urn:acme:hub", "web"), ("user.created",)),
        ApiKey("any", DIGEST, ("*",), ("*",)),
    )
    assert [key.source for key in read] == ["urn:acme:hub", "any"]


@pytest.mark.parametrize(
    "text",
    ["hub", "hub:open sesame:*:*", f":{DIGEST}:*:*", f"hub:{DIGEST}:*", f"hub:{DIGEST}::"],
)
def test_a_key_of_another_form_is_refused_and_not_shown(text: str) -> None:
    """It may be the secret itself, pasted in place of its digest."""
    with pytest.raises(ValueError, match="name:sha256:sources:types") as refusal:
        keys(text)

    assert "sesame" not in str(refusal.value)


@pytest.mark.parametrize("types", ["tool.executed", "tool.executed.v2", "*"])
def test_a_key_that_assigns_may_not_publish_tool_runs(types: str) -> None:
    """One leaked secret could have any account pay for any run."""
    with pytest.raises(ValueError, match=r"user\.assigned"):
        keys(f"hub:{DIGEST}:*:user.assigned|{types}")
    with pytest.raises(ValueError, match=r"user\.assigned"):
        make_api_key("hub", ["*"], ["user.assigned", types])


def test_only_a_key_of_that_type_may_assign() -> None:
    """A key for any event may not."""
    (assigning, anything) = keys(f"a:{DIGEST}:*:user.assigned|user.created,b:{DIGEST}:*:*")

    assert (assigning.may_assign, anything.may_assign) == (True, False)


@pytest.mark.parametrize(
    ("types", "allowed"),
    [
        ("*", True),
        ("user.created", True),
        ("user.created.v1", True),
        ("user.created.v2", False),
        ("tool.executed", False),
        ("tool.executed|user.created", True),
    ],
)
def test_a_key_allows_its_event_types_only(*, types: str, allowed: bool) -> None:
    """A name allows every version, a type one version."""
    (key,) = keys(f"hub:{DIGEST}:*:{types}")

    assert key.may_publish("user.created.v1") is allowed


@pytest.mark.parametrize(
    ("authorization", "known"),
    [
        ("Bearer open sesame", True),
        ("bearer  open sesame ", True),
        ("Bearer close sesame", False),
        ("Basic open sesame", False),
        ("Bearer ", False),
        ("", False),
        (None, False),
        (f"Bearer {DIGEST}", False),
        ("Bearer \udcff", False),
        ("Bearer ü", False),
        ("\udcff", False),
    ],
)
def test_only_the_key_itself_is_accepted(*, authorization: str | None, known: bool) -> None:
    """The configured digest is not accepted as a key."""
    assert (key_of(authorization, keys(f"hub:{DIGEST}:*:*")) is not None) is known


def test_without_configured_keys_none_is_accepted() -> None:
    """The default of API_KEYS refuses every request."""
    assert key_of("Bearer open sesame", ()) is None


def test_a_new_key_is_accepted_by_its_configured_entry() -> None:
    """The entry has a hash only; each key is another one."""
    secret, key = make_api_key("hub", ["urn:acme:hub", "web"], ["user.created"])

    assert keys(key.configured) == (key,)
    assert key_of(f"Bearer {secret}", keys(key.configured)) == key
    assert secret not in key.configured
    assert make_api_key("hub", ["*"], ["*"])[0] != secret


@pytest.mark.parametrize(
    ("name", "source", "kind"), [("a:b", "x", "y"), ("a", "x,y", "z"), ("a", "x", "y|z:w")]
)
def test_a_key_with_separators_in_its_names_is_not_made(name: str, source: str, kind: str) -> None:
    """Its entry would be read as another key."""
    with pytest.raises(ValueError, match="have no colon"):
        make_api_key(name, [source], [kind])


def test_two_keys_of_one_name_are_both_accepted() -> None:
    """While a key is replaced, the old and the new one work."""
    (old, first), (new, second) = (make_api_key("hub", ["*"], ["*"]) for _ in range(2))
    configured = keys(f"{first.configured},{second.configured}")

    assert key_of(f"Bearer {old}", configured) == first
    assert key_of(f"Bearer {new}", configured) == second
