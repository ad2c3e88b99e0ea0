"""Errors of messages, one class per cause. No text contains a value of the message."""

from typing import ClassVar

from nexus_contracts.wording import BrokenRule


class ContractError(Exception):
    """A message breaks the contract; no retry can succeed.

    The text names field paths and rules, and no values, which may be personal data.
    """

    reason: ClassVar[str]

    def __init__(self, *broken: BrokenRule) -> None:
        super().__init__("; ".join(each.text for each in broken))
        self.broken = broken


class UnreadableError(ContractError):
    """The body is not JSON, not a CloudEvents envelope, or too large."""

    reason: ClassVar[str] = "unreadable"


class UnsupportedVersionError(ContractError):
    """The event is known, but not in this major version."""

    reason: ClassVar[str] = "unsupported_version"


class InvalidEventError(ContractError):
    """The envelope is readable; its type or its data breaks the contract."""

    reason: ClassVar[str] = "invalid"
