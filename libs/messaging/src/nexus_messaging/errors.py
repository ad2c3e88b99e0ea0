"""How processing a message can fail, told apart by what helps: nothing, waiting, or a look."""

import traceback

from nexus_messaging.reasons import Reason
from nexus_messaging.topology import Tier


class PermanentError(Exception):
    """No retry can make this message succeed. ``detail`` must hold no value from the message.

    ``subject`` is the one party that the fault is of, such as a customer, and is never shown.
    """

    def __init__(self, reason: Reason, detail: str, *, subject: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.subject = subject


class TransientError(Exception):
    """The same message will succeed later; waiting spends none of its budget.

    ``tier`` says where it waits; without one it waits longer each time.
    """

    def __init__(self, detail: str, *, tier: Tier | None = None) -> None:
        super().__init__(detail)
        self.tier = tier


class PublishError(Exception):
    """The broker has not confirmed a message. It may arrive all the same."""


class UnroutableError(PublishError):
    """No queue takes the message: the topology is incomplete or the key is wrong."""


class PublishTimeoutError(PublishError):
    """No confirm came in time, as during an alarm; the message may still arrive later."""


def where(error: BaseException) -> str:
    """Return the innermost place an error was raised from, such as ``ledger.py:88``.

    An error's own text may quote the data it choked on; its place never does.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "unknown"
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
