"""The setting of whoever takes Stripe's webhooks, and which mode a key is of."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr

_SECRET: Final = re.compile(r"whsec_[!-~]+")
_MAX_SECRETS: Final = 2
"""An endpoint's, and its next one while it is rotated."""

_LIVE: Final = re.compile(r"[a-z]+_live_")


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(SecretStr(part.strip()) for part in value.split(",") if part.strip())


def _validate(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not all(_SECRET.fullmatch(secret.get_secret_value()) for secret in secrets):
        raise ValueError("must be the signing secret of an endpoint, which begins with whsec_")
    if len(secrets) > _MAX_SECRETS:
        raise ValueError("must be one secret, or two while it is rotated")
    return secrets


class WebhookSettings(BaseModel):
    """How Stripe's webhooks are known to be Stripe's."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    stripe_webhook_secret: Annotated[
        tuple[SecretStr, ...], BeforeValidator(_split), AfterValidator(_validate)
    ] = ()
    """The signing secret of this service's webhook endpoint at Stripe, `whsec_…`; two,
    comma-separated, while it is rotated. Empty: there is no endpoint, and a request to it is
    answered with 404."""


def is_live(secret_key: SecretStr) -> bool:
    """Return whether an API key is of live mode: `sk_live_…` or `rk_live_…`."""
    return _LIVE.match(secret_key.get_secret_value()) is not None
