"""What each of Stripe's responses means for a user: one table, read from the top."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final

from customer_provisioner.circuit import StripeKeyRefusedError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from nexus_messaging.topology import TIERS
from nexus_stripe.answer_classes import (
    ACCEPTED,
    CONFLICT,
    FORBIDDEN,
    KEY_MISUSED,
    LOCKED,
    LOST,
    NEVER_SENT,
    RATE_LIMITED,
    REFUSED,
    SERVER_ERROR,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNFORESEEN,
    UNREADABLE,
    AnswerClass,
    classify,
)
from nexus_stripe.answers import StripeAnswer


class KeySpentError(TransientError):
    """The idempotency key can't bring a customer any more, and may have brought one.

    The next attempt looks for the customer before it uses a new key.
    """


class RightMissingError(TransientError):
    """The key is valid but lacks a right that only these calls need: an operator adds it."""


class NotFoundError(PermanentError):
    """Stripe has no object of this id."""


class OtherModeError(NotFoundError):
    """Stripe has the object in the other mode, live or test, and not in the key's."""


REPLAYED: Final = replace(ACCEPTED, name="replayed", text="2xx, repeated", replayed=True)
"""Stripe kept the response under the idempotency key: an earlier call created the customer."""

NOT_FOUND: Final = replace(REFUSED, name="not_found", text="404", statuses=(404, 404))

OTHER_MODE: Final = replace(
    NOT_FOUND, name="other_mode", text="404, of the other mode", other_mode=True
)


def _no_response(text: str) -> TransientError:
    return TransientError(f"no response from Stripe: {text}")


TABLE: Final[Mapping[AnswerClass, Callable[[str], Exception] | None]] = MappingProxyType(
    {
        REPLAYED: None,
        ACCEPTED: None,
        NEVER_SENT: _no_response,
        LOST: _no_response,
        UNREADABLE: _no_response,
        SERVER_ERROR: KeySpentError,
        UNAVAILABLE: TransientError,
        UNAUTHORIZED: StripeKeyRefusedError,
        FORBIDDEN: StripeKeyRefusedError,
        CONFLICT: partial(TransientError, tier=TIERS[0]),
        RATE_LIMITED: TransientError,
        LOCKED: TransientError,
        KEY_MISUSED: KeySpentError,
        OTHER_MODE: partial(OtherModeError, Reason.REFUSED_BY_STRIPE),
        NOT_FOUND: partial(NotFoundError, Reason.REFUSED_BY_STRIPE),
        REFUSED: partial(PermanentError, Reason.REFUSED_BY_STRIPE),
        UNFORESEEN: TransientError,
    }
)
"""The error that follows from each class of answers, made from a text; None for success.

The first class that matches an answer counts, and every answer has one. An answer that Stripe did
not make is never a refusal: it says nothing about the user.
"""


def response_of(answer: StripeAnswer) -> tuple[AnswerClass, Exception | None]:
    """Return the class of ``answer`` and the error that follows from it, None for success.

    The error's text holds names of faults and no value, see ``Answer.describe``.
    """
    kind = classify(answer, TABLE)
    make_error = TABLE[kind]
    return kind, None if make_error is None else make_error(answer.describe())
