"""Stripe's signature of a webhook, checked by Stripe's SDK on the bytes that arrived."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import stripe
from pydantic import SecretStr

TOLERANCE_SECONDS: Final = 300
"""How old a signature may be, Stripe's own default
(https://docs.stripe.com/webhooks#verify-official-libraries). Stripe signs each attempt anew."""


class SignatureFault(StrEnum):
    """Why a webhook's signature is refused."""

    MISSING = "unsigned"
    """It has no signature."""
    FORGED = "forged"
    """None of its signatures was made with one of the secrets."""
    OLD = "outdated"
    """The signature was made more than ``TOLERANCE_SECONDS`` ago."""


def signature_fault(
    body: bytes, header: str | None, secrets: Sequence[SecretStr]
) -> SignatureFault | None:
    """Return why ``body`` is not Stripe's; None if it is.

    Args:
        body: The request's body as it arrived: written anew it would have another signature.
        header: The value of `Stripe-Signature`.
        secrets: The endpoint's secret, and during a rotation the other one.
    """
    if not header:
        return SignatureFault.MISSING
    if any(_verifies(body, header, secret, TOLERANCE_SECONDS) for secret in secrets):
        return None
    if any(_verifies(body, header, secret, None) for secret in secrets):
        return SignatureFault.OLD
    return SignatureFault.FORGED


def _verifies(body: bytes, header: str, secret: SecretStr, tolerance: int | None) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, header, secret.get_secret_value(), tolerance)
    except (stripe.SignatureVerificationError, ValueError, TypeError):
        # ValueError: the body is not UTF-8. TypeError: the signature is not ASCII. Their texts hold
        # the body, so nothing of them is kept.
        return False
    return True
