"""Tokens of users: which keys sign them, and what a token must say.

A token is a JWT (RFC 7519), signed by the host's backend with a private key that only it has. The
public keys are here, as a JSON Web Key Set (RFC 7517). Nothing of a token reaches a log or an
answer.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import jwt

from nexus_service.problems import Code, Problem, ProblemError

AUDIENCE: Final = "nexus-usage"
ALGORITHMS: Final = {"Ed25519": "EdDSA", "P-256": "ES256"}
"""By the curve of a key. Others are refused, those with a shared secret above all."""

MAX_LIFETIME_SECONDS: Final = 15 * 60
"""Seconds from `iat` to `exp`: a token can't be withdrawn."""

CLOCK_SKEW: Final = 30
"""Seconds that the host's clock may be ahead of ours."""

EXPIRED: Final = Problem(Code.TOKEN_EXPIRED, "the token has expired: get a new one from its issuer")


@dataclass(frozen=True, slots=True)
class TokenUser:
    """Whom a token speaks for: a user, and an account whose totals they may see."""

    user_id: UUID
    account_id: UUID | None


class KeysError(Exception):
    """A file holds no usable key set; the text says why, without any key."""


class TokenKeys:
    """The public keys in a file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            KeysError: it can't be read, or is no set of usable keys.
        """
        self._path = path
        self._version = self._stat()
        self._keys = read_keys(_text(path))

    def current(self) -> Mapping[str, jwt.PyJWK]:
        """Return the keys by `kid`; those read before, while the file can't be used."""
        self.fault()
        return self._keys

    def fault(self) -> str | None:
        """Read the file if it has changed; return why it can't be used, or ``None``."""
        try:
            if (version := self._stat()) != self._version:
                self._keys = read_keys(_text(self._path))
                self._version = version
        except KeysError as error:
            return str(error)
        return None

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - half the time, at each request
        except OSError as error:
            raise _unreadable(error) from None
        return found.st_mtime_ns, found.st_size, found.st_ino


def read_keys(text: str) -> Mapping[str, jwt.PyJWK]:
    """Read a JSON Web Key Set of public keys.

    Raises:
        KeysError: a key is private, of another kind, or has no `kid` of its own.
    """
    try:
        listed = json.loads(text)["keys"]
        keys = [_read_key(number, each) for number, each in enumerate(listed)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysError('USAGE_TOKEN_KEYS: not {"keys": [...]} in JSON') from None
    if not keys or len({key.key_id for key in keys}) < len(keys):
        raise KeysError("USAGE_TOKEN_KEYS: no keys, or two with the same kid")
    return {str(key.key_id): key for key in keys}


def _read_key(number: int, written: Any) -> jwt.PyJWK:
    if not isinstance(written, dict) or not isinstance(written.get("kid"), str):
        raise KeysError(f"USAGE_TOKEN_KEYS: key {number} has no kid")
    if "d" in written or "k" in written:
        raise KeysError(f"USAGE_TOKEN_KEYS: key {number} is secret; only public keys belong here")
    algorithm = ALGORITHMS.get(str(written.get("crv")))
    if algorithm is None or written.get("alg", algorithm) != algorithm:
        raise KeysError(f"USAGE_TOKEN_KEYS: key {number} is neither Ed25519 nor P-256")
    try:
        return jwt.PyJWK(written, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise KeysError(f"USAGE_TOKEN_KEYS: key {number} is no valid key") from None


def verify(token: str, keys: Mapping[str, jwt.PyJWK], now: datetime) -> TokenUser:
    """Return whom ``token`` speaks for.

    Raises:
        ProblemError: the token is not one of the host's, or has expired.
    """
    try:
        header = jwt.get_unverified_header(token)
        key = keys.get(str(header.get("kid")))
        if key is None or "crit" in header:
            raise _refused("it names no key that is configured")
        # Times are compared below, by the clock that is passed in.
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=AUDIENCE,
            options={
                "require": ["exp", "iat", "sub", "aud"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except jwt.InvalidAudienceError:
        raise _refused(f"its aud is not {AUDIENCE}") from None
    except jwt.MissingRequiredClaimError as error:
        raise _refused(f"it has no {error.claim}") from None
    except (jwt.PyJWTError, RecursionError):
        raise _refused("it is no token that a configured key has signed") from None
    _require_time(claims, now.timestamp())
    account = claims.get("account")
    return TokenUser(_uuid(claims, "sub"), None if account is None else _uuid(claims, "account"))


def _require_time(claims: Mapping[str, Any], now: float) -> None:
    issued, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
    if not 0 < expires - issued <= MAX_LIFETIME_SECONDS:
        raise _refused(f"its exp is more than {MAX_LIFETIME_SECONDS // 60} minutes after its iat")
    if max(issued, _seconds(claims, "nbf", issued)) > now + CLOCK_SKEW:
        raise _refused("its iat or nbf lies ahead")
    if expires <= now:
        raise ProblemError(EXPIRED)


def _seconds(claims: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    # Not NaN, which is less and more than nothing.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e11:  # noqa: PLR2004
        raise _refused(f"its {name} is no time in seconds")
    return value


def _uuid(claims: Mapping[str, Any], name: str) -> UUID:
    try:
        return UUID(claims[name])
    except (ValueError, TypeError, AttributeError):
        raise _refused(f"its {name} is no UUID") from None


def _refused(why: str) -> ProblemError:
    return ProblemError(Problem(Code.UNAUTHORIZED, f"the token is refused: {why}"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise KeysError("USAGE_TOKEN_KEYS: not in UTF-8") from None
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> KeysError:
    return KeysError(f"USAGE_TOKEN_KEYS: can't be read ({type(error).__name__})")
