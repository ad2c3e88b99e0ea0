"""What can be wrong with a message, one class per cause, none of them repeating what was in it."""

from typing import ClassVar


class ContractError(Exception):
    """A message that no retry can make right.

    The text names field paths and rules only; values, which may be personal, never enter it.
    """

    reason: ClassVar[str]


class UnreadableError(ContractError):
    """The body is no JSON, no CloudEvents envelope, or too large to be one."""

    reason: ClassVar[str] = "unreadable"


class UnsupportedVersionError(ContractError):
    """The event is known, this major version of it is not."""

    reason: ClassVar[str] = "unsupported_version"


class InvalidEventError(ContractError):
    """The envelope is readable; its type or its data breaks the contract."""

    reason: ClassVar[str] = "invalid"
