"""The field types that several events share."""

from typing import Annotated, Final

from pydantic import Field

MAX_VALUE: Final = 999_999_999_999_999
"""Stripe refuses meter values of more than 15 significant digits."""

Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A short name without control characters; PostgreSQL could not store a null byte."""

StripeCustomerId = Annotated[str, Field(pattern=r"^cus_[A-Za-z0-9_]{1,200}$")]
Identifier = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._:-]+$")]
"""A meter event's identifier; Stripe takes at most 100 characters."""

MAX_TOKENS: Final = 10_000_000_000
"""Of one run: the sum of 10,000 such runs still has at most 15 digits."""

Quantity = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
PositiveQuantity = Annotated[int, Field(gt=0, le=MAX_VALUE)]
