"""Ids of the account's objects: a prefix for the kind, then random letters and digits."""

import hashlib
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str, length: int = 14) -> str:
    """Make an id such as ``cus_NffrFeUfNV2Hib``."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def derived_id(prefix: str, *parts: object) -> str:
    """Make an id that is the same for the same parts, so that it can serve as a cursor."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()
    return f"{prefix}_test_{digest[:32]}"
