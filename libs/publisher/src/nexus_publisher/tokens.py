"""Tokens by which a user's browser reads the user's own usage; needs the extra ``tokens``."""

import time
from datetime import timedelta
from typing import Final
from uuid import UUID

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

AUDIENCE: Final = "nexus-usage"

MAX_LIFETIME: Final = timedelta(minutes=15)
"""The usage API takes no longer lifetime: a token can't be withdrawn."""


def sign_usage_token(
    private_key: str,
    kid: str,
    user_id: UUID | str,
    account: UUID | str | None = None,
    *,
    lifetime: timedelta = timedelta(minutes=10),
) -> str:
    """Return a token for a user whom the host has authenticated.

    Args:
        private_key: PEM of Ed25519 or P-256; line breaks may be written as a backslash and an n.
        kid: the key's name in the usage API's ``USAGE_TOKEN_KEYS``.
        user_id: whose usage the bearer may read.
        account: an account whose totals they may read, too. The host decides who may.
        lifetime: 15 minutes at most.

    Raises:
        ValueError: an argument can't be used; the text repeats none of them.
    """
    if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
        raise ValueError("lifetime: from a second to 15 minutes")
    if not kid:
        raise ValueError("kid: the name of the key is missing")
    key, algorithm = _read_key(private_key)
    now = int(time.time())
    claims: dict[str, object] = {
        "aud": AUDIENCE,
        "sub": _uuid("user_id", user_id),
        "iat": now,
        "exp": now + int(lifetime.total_seconds()),
    }
    if account is not None:
        claims["account"] = _uuid("account", account)
    return jwt.encode(claims, key, algorithm, headers={"kid": kid})


def _read_key(pem: str) -> tuple[Ed25519PrivateKey | EllipticCurvePrivateKey, str]:
    try:
        key = load_pem_private_key(pem.replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("private_key: no private key in PEM without a password") from None
    if isinstance(key, Ed25519PrivateKey):
        return key, "EdDSA"
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key, "ES256"
    raise ValueError("private_key: neither Ed25519 nor P-256")


def _uuid(name: str, value: UUID | str) -> str:
    try:
        return str(UUID(str(value)))
    except ValueError:
        raise ValueError(f"{name}: no UUID") from None
