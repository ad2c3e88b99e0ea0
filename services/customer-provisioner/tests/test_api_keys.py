"""Who may use the HTTP door, and for what."""

from hashlib import sha256
from typing import Any

import pytest

from customer_provisioner.api_keys import ApiKey, holder, read_api_keys

DIGEST = sha256(b"open sesame").hexdigest()


def keys(written: str) -> tuple[ApiKey, ...]:
    """Read keys as the settings do."""
    read: Any = read_api_keys(written)
    return tuple(read)


def test_keys_are_read_with_their_sources_and_types() -> None:
    """Comma-separated keys; several sources and types are joined by |; a source may hold colons."""
    read = keys(f"hub:{DIGEST}:urn:acme:hub|web:user.created, any:{DIGEST.upper()}:*:*")

    assert read == (
        ApiKey("hub", DIGEST, ("urn:acme:hub", "web"), ("user.created",)),
        ApiKey("any", DIGEST, ("*",), ("*",)),
    )
    assert [key.source for key in read] == ["urn:acme:hub", "any"]


@pytest.mark.parametrize(
    "written",
    ["hub", "hub:open sesame:*:*", f":{DIGEST}:*:*", f"hub:{DIGEST}:*", f"hub:{DIGEST}::"],
)
def test_a_key_written_otherwise_is_refused_without_being_repeated(written: str) -> None:
    """The secret itself, pasted in place of its digest, is not shown in the refusal."""
    with pytest.raises(ValueError, match="name:sha256:sources:types") as refusal:
        keys(written)

    assert "sesame" not in str(refusal.value)


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
def test_a_key_covers_its_events_only(*, types: str, allowed: bool) -> None:
    """By name in every version, or one version of it."""
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
def test_a_holder_is_known_by_the_key_itself(*, authorization: str | None, known: bool) -> None:
    """The digest, which is all that is configured, opens nothing."""
    assert (holder(keys(f"hub:{DIGEST}:*:*"), authorization) is not None) is known


def test_without_keys_nobody_is_known() -> None:
    """An unset API_KEYS closes the door."""
    assert holder((), "Bearer open sesame") is None
