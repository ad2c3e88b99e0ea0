"""How processing can fail: permanently, until a later retry, or in publishing."""

import traceback

from nexus_messaging.reasons import Reason
from nexus_messaging.topology import Tier


class PermanentError(Exception):
    """No retry can make this message succeed. ``detail`` must hold no value from the message.

    ``subject`` identifies the party at fault, such as a customer; it is never shown.
    """

    def __init__(self, reason: Reason, detail: str, *, subject: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.subject = subject


class TransientError(Exception):
    """The same message will succeed later; a wait does not count against its retry budget.

    ``tier`` is the retry tier to use; without one, each wait is longer than the last.
    """

    def __init__(self, detail: str, *, tier: Tier | None = None) -> None:
        super().__init__(detail)
        self.tier = tier


class PublishError(Exception):
    """The broker has not confirmed a message. The message may still arrive."""


class UnroutableError(PublishError):
    """The message is not routed to any queue: the topology is incomplete or the key is wrong."""


class PublishTimeoutError(PublishError):
    """No confirm came in time, as during an alarm; the message may still arrive later."""


def where(error: BaseException) -> str:
    """Return the file and line that raised an error, such as ``ledger.py:88``.

    The text of an error may quote the failing data; its file and line never do.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "unknown"
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
