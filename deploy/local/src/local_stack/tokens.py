"""Tokens by which a page reads the usage of its user: JWT (RFC 7519), signed with Ed25519."""

import base64
import json
import time
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KID: Final = "local"
"""The key's name in the key set."""

LIFETIME_SECONDS: Final = 600
"""The usage API takes 15 minutes at most."""


def sign_token(key: Ed25519PrivateKey, user: str, account: str | None) -> str:
    """Return a token for ``user``, who may also see the totals of ``account``."""
    now = int(time.time())
    claims = {"aud": "nexus-usage", "sub": user, "iat": now, "exp": now + LIFETIME_SECONDS}
    if account is not None:
        claims["account"] = account
    signed = ".".join(map(_part, ({"alg": "EdDSA", "typ": "JWT", "kid": KID}, claims)))
    return f"{signed}.{base64url(key.sign(signed.encode()))}"


def base64url(content: bytes) -> str:
    """Write bytes as JSON Web Tokens and Keys have them."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _part(document: object) -> str:
    return base64url(json.dumps(document).encode())
