"""Reads requests: who asks, what about, and whether they may. Everything here is pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from nexus_contracts.wording import BrokenRule
from nexus_service.api_keys import ENTITLEMENTS_READ, USAGE_READ, ApiKey
from nexus_service.problems import Code, Fault, Problem, ProblemError
from usage_ingest.usage_api.tokens import TokenUser

DEFAULT_SPAN: Final = timedelta(days=30)

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)


class By(StrEnum):
    """The length of the spans that usage is given by."""

    DAY = "day"
    HOUR = "hour"

    @property
    def length(self) -> timedelta:
        """The length; a day is UTC's."""
        return timedelta(days=1) if self is By.DAY else timedelta(hours=1)

    @property
    def longest(self) -> timedelta:
        """The longest span of one request, so that an answer has some thousand rows at most."""
        return timedelta(days=400) if self is By.DAY else timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request may read: rows of a user, and totals of some accounts.

    ``account_id`` is the account that is asked about; ``None``: the one that the user is in.
    ``readable`` are the accounts whose totals may be read; ``None``: any, for a service.
    """

    user_id: UUID
    account_id: UUID | None
    readable: frozenset[UUID] | None

    def may_read(self, account_id: UUID) -> bool:
        """Return whether totals of ``account_id`` may be read."""
        return self.readable is None or account_id in self.readable


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What `/v1/usage` is asked; the span consists of whole hours or days."""

    scope: Scope
    start: datetime
    end: datetime
    by: By


def entitlements_scope(caller: ApiKey | TokenUser, user_id: str) -> Scope:
    """Return the scope of `/v1/entitlements/{user_id}`.

    Raises:
        ProblemError: no UUID, or the caller may not ask about this user.
    """
    user = _uuid("user_id", user_id)
    if isinstance(caller, ApiKey):
        _require(caller, ENTITLEMENTS_READ)
        return Scope(user, None, None)
    if user != caller.user_id:
        raise ProblemError(Problem(Code.FORBIDDEN, "the token is another user's"))
    return Scope(user, None, _readable(caller))


def usage_query(
    caller: ApiKey | TokenUser, parameters: Mapping[str, str], now: datetime
) -> UsageQuery:
    """Read the query of `/v1/usage`.

    Raises:
        ProblemError: a parameter breaks a rule, or the caller may not ask for this.
    """
    written = parameters.get("by", By.DAY)
    if written not in tuple(By):
        raise _invalid("by", "must be day or hour")
    by = By(written)
    end = _moment(parameters, "to") or now
    start = _moment(parameters, "from") or end - DEFAULT_SPAN
    if not EARLIEST <= start < end < LATEST:
        raise _invalid("from", "must be before to")
    start, end = whole_spans(start, end, by)
    if end - start > by.longest + by.length:
        raise _invalid("from", f"by {by}, a span has at most {by.longest.days} days")
    return UsageQuery(_usage_scope(caller, parameters), start, end, by)


def whole_spans(start: datetime, end: datetime, by: By) -> tuple[datetime, datetime]:
    """Return the hours or days, in UTC, that ``start`` to ``end`` touches."""
    first, last = _floor(start, by), _floor(end, by)
    return first, last if last == end else last + by.length


def _usage_scope(caller: ApiKey | TokenUser, parameters: Mapping[str, str]) -> Scope:
    user, account = (
        _uuid(name, parameters[name]) if name in parameters else None
        for name in ("user", "account")
    )
    if isinstance(caller, ApiKey):
        _require(caller, USAGE_READ)
        if user is None:
            raise _invalid("user", "is missing")
        return Scope(user, account, None)
    if user not in (None, caller.user_id):
        raise ProblemError(Problem(Code.FORBIDDEN, "the token is another user's"))
    scope = Scope(caller.user_id, account or caller.account_id, _readable(caller))
    if account is not None and not scope.may_read(account):
        raise ProblemError(Problem(Code.FORBIDDEN, "the token has no claim for this account"))
    return scope


def _readable(user: TokenUser) -> frozenset[UUID]:
    """Return the account that the token claims, and the user's own."""
    return frozenset({user.user_id, user.account_id or user.user_id})


def _require(key: ApiKey, right: str) -> None:
    if not key.may_read(right):
        raise ProblemError(Problem(Code.FORBIDDEN, f"the key lacks the right {right}"))


def _uuid(name: str, written: str) -> UUID:
    try:
        return UUID(written)
    except ValueError:
        raise _invalid(name, "must be a UUID") from None


def _moment(parameters: Mapping[str, str], name: str) -> datetime | None:
    """Read a time or a date, which means its first moment in UTC."""
    if (written := parameters.get(name)) is None:
        return None
    try:
        read = datetime.fromisoformat(written)
    except ValueError:
        read = None
    if read is not None and read.tzinfo is None and len(written) == len("2026-03-01"):
        read = read.replace(tzinfo=UTC)
    if read is None or read.tzinfo is None or not EARLIEST <= read < LATEST:
        raise _invalid(name, "must be a time as RFC 3339 writes it, or a date: 2026-03-01")
    return read.astimezone(UTC)


def _floor(moment: datetime, by: By) -> datetime:
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour.replace(hour=0) if by is By.DAY else hour


def _invalid(field: str, rule: str) -> ProblemError:
    problem = Problem(Code.INVALID, f"{field} {rule}", [Fault(BrokenRule(field, rule))])
    return ProblemError(problem)
