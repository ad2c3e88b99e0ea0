"""API keys: their states, and the key in a request."""

import base64
import binascii
from dataclasses import dataclass
from enum import StrEnum

from stripe_emulator.errors import expired_key, invalid_key, missing_key, permission_denied


class KeyState(StrEnum):
    """The state of a key."""

    VALID = "valid"
    REVOKED = "revoked"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True)
class _Grant:
    state: KeyState
    permissions: frozenset[str]


class ApiKeys:
    """The account's keys; they can be added, revoked and restricted while it runs."""

    def __init__(self) -> None:
        self._grants: dict[str, _Grant] = {}

    def put(self, key: str, state: KeyState, permissions: frozenset[str] = frozenset()) -> None:
        """Add a key or change its state.

        Args:
            key: The secret key.
            state: A revoked key answers 401, a restricted one 403 for what it has no permission to.
            permissions: What a restricted key may do, by names such as ``rak_customer_write``.
        """
        self._grants[key] = _Grant(state, permissions)

    def authorize(self, authorization: str | None, permission: str) -> None:
        """Check that a request's key has a permission.

        Args:
            authorization: The ``Authorization`` header: ``Bearer <key>``, or ``Basic`` with the key
                as user name.
            permission: The permission that its endpoint needs.

        Raises:
            StripeError: 401 for no key, an unknown or a revoked one; 403 for a restricted one.
        """
        key = key_from(authorization)
        if not key:
            raise missing_key()
        grant = self._grants.get(key)
        if grant is None:
            raise invalid_key(key)
        if grant.state is KeyState.REVOKED:
            raise expired_key(key)
        if grant.state is KeyState.RESTRICTED and permission not in grant.permissions:
            raise permission_denied(key, permission)


def key_from(authorization: str | None) -> str:
    """Read the key from an ``Authorization`` header; empty when it has none."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
