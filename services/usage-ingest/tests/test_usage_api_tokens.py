"""Users' tokens: what is accepted, and what is refused and why."""

import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from nexus_service.problems import Code, ProblemError
from support.usage_tokens import Signer, write_key_set
from usage_ingest.usage_api.tokens import KeysError, TokenKeys, TokenUser, read_keys, verify

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = NOW.timestamp()
USER, ACCOUNT = uuid4(), uuid4()
ED25519, P_256 = Signer("one"), Signer.es256("two")


def key_set(*keys: dict[str, object]) -> str:
    """Return a key set as a file has it."""
    return json.dumps({"keys": keys})


KEYS = read_keys(key_set(ED25519.public, P_256.public))


def refusal(token: str) -> tuple[str, str]:
    """Return the code and the text of a refusal."""
    with pytest.raises(ProblemError) as refused:
        verify(token, KEYS, NOW)
    return refused.value.problem.code, refused.value.problem.detail


@pytest.mark.parametrize("signer", [ED25519, P_256])
def test_token_of_a_configured_key_speaks_for_its_user(signer: Signer) -> None:
    """Both algorithms; with and without an account."""
    assert verify(signer.token(USER, now=AT), KEYS, NOW) == TokenUser(USER, None)
    assert verify(signer.token(USER, ACCOUNT, now=AT), KEYS, NOW) == TokenUser(USER, ACCOUNT)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "another"}, "aud"),
        ({"aud": None}, "aud"),
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"sub": None}, "sub"),
        ({"sub": "grace@example.com"}, "sub is no UUID"),
        ({"account": "one"}, "account is no UUID"),
        ({"account": 5}, "account is no UUID"),
        ({"exp": int(AT) + 901}, "15 minutes"),
        ({"iat": int(AT), "exp": int(AT)}, "15 minutes"),
        ({"iat": int(AT) + 31, "exp": int(AT) + 60}, "lies ahead"),
        ({"nbf": int(AT) + 31}, "lies ahead"),
        ({"exp": "soon"}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"exp": float("inf")}, "exp"),
        ({"exp": True}, "exp"),
    ],
)
def test_token_that_says_something_else_is_refused(claims: dict[str, Any], why: str) -> None:
    """The text names the claim, and shows no value."""
    code, detail = refusal(ED25519.token(USER, now=AT, **claims))

    assert code == Code.UNAUTHORIZED
    assert why in detail
    assert "grace" not in detail


def test_expired_token_has_a_code_of_its_own() -> None:
    """A page gets a new one then; other refusals stay refusals."""
    assert refusal(ED25519.token(USER, now=AT - 600))[0] == Code.TOKEN_EXPIRED
    assert verify(ED25519.token(USER, now=AT - 599), KEYS, NOW).user_id == USER


def test_forged_tokens_are_refused() -> None:
    """Of an unknown key, of a known one's name, changed, unsigned, or signed with a public key."""
    token = ED25519.token(USER, now=AT)
    head, body, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False}) | {"sub": str(ACCOUNT)}
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    forged = [
        Signer("three").token(USER, now=AT),
        Signer("one").token(USER, now=AT),
        Signer("one", P_256.algorithm, P_256.key).token(USER, now=AT),
        f"{head}.{changed}.{signature}",
        f"{head}.{body}.",
        jwt.encode(claims, "", "none", headers={"kid": "one"}),
        jwt.encode(claims, ED25519.public["x"], "HS256", headers={"kid": "one"}),
        jwt.encode(claims, ED25519.key, "EdDSA"),
        jwt.encode(claims, ED25519.key, "EdDSA", headers={"kid": "one", "crit": ["x"], "x": 1}),
        "..",
        "a.b.c",
        "é.é.é",
        f"{base64.urlsafe_b64encode(b'[' * 30_000).decode()}.e30.",
    ]

    assert {refusal(each)[0] for each in forged} == {Code.UNAUTHORIZED}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JSON"),
        ("[]", "JSON"),
        ('{"keys": 5}', "JSON"),
        ('{"keys": []}', "no keys"),
        (key_set(ED25519.public, ED25519.public), "same kid"),
        (key_set({**ED25519.public, "kid": None}), "no kid"),
        (key_set(P_256.public, ED25519.private), "key 1 is secret"),
        (key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), "secret"),
        (key_set({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a"}), "neither"),
        (key_set({**ED25519.public, "alg": "HS256"}), "neither"),
        (key_set({**ED25519.public, "x": "AAAA"}), "no valid key"),
    ],
)
def test_unusable_key_set_is_refused(text: str, why: str) -> None:
    """The error says which key and why, and quotes none."""
    with pytest.raises(KeysError, match=why) as error:
        read_keys(text)
    assert ED25519.private["d"] not in str(error.value)


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    """A new key counts at once; while the file is broken, the keys read before hold on."""
    path = tmp_path / "keys.json"
    write_key_set(path, [ED25519])
    keys = TokenKeys(path)
    assert set(keys.current()) == {"one"}

    write_key_set(path, [P_256])
    assert set(keys.current()) == {"two"}

    path.write_text("{", encoding="utf-8")
    assert set(keys.current()) == {"two"}
    assert "JSON" in str(keys.fault())
    path.unlink()
    assert "FileNotFoundError" in str(keys.fault())
    write_key_set(path, [ED25519])
    os.utime(path, (1, 1))
    assert keys.fault() is None
    assert set(keys.current()) == {"one"}


def test_missing_key_set_stops_the_start(tmp_path: Path) -> None:
    """No tokens would be accepted, ever."""
    with pytest.raises(KeysError, match="can't be read"):
        TokenKeys(tmp_path / "none.json")


def test_user_is_a_uuid_in_any_form() -> None:
    """A host may write it in capitals."""
    token = ED25519.token(USER, now=AT, sub=str(USER).upper())

    assert verify(token, KEYS, NOW).user_id == UUID(str(USER))
