"""Which webhooks are Stripe's by their signatures."""

import time
from collections.abc import Callable
from typing import Final

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from nexus_stripe.signatures import TOLERANCE_SECONDS, SignatureFault, signature_fault
from nexus_stripe.webhook_settings import WebhookSettings, is_live

OLD, NEW, OTHER = "whsec_old", "whsec_new", "whsec_other"
BODY = '{"id": "evt_1", "name": "Ada Löwe"}'


def sign(secret: str = OLD, *, age: float = 0, body: str = BODY) -> str:
    """Return the signature that Stripe would send."""
    made = int(time.time() - age)
    return str(stripe.WebhookSignature.generate_signature_header(body, secret, made))


def fault(header: str | None, body: bytes = BODY.encode()) -> SignatureFault | None:
    """Return what is wrong with a webhook while the secret is being rotated."""
    return signature_fault(body, header, [SecretStr(OLD), SecretStr(NEW)])


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_both_secrets_are_good_during_a_rotation(secret: str) -> None:
    """Stripe signs with both for as long as the old one has been given to live."""
    assert fault(sign(secret)) is None
    assert fault(f"{sign(OTHER)},{sign(secret).partition(',')[2]}") is None


FORGERIES: Final[dict[str, Callable[[], str]]] = {
    "other secret": lambda: sign(OTHER),
    "other body": lambda: sign(body=BODY + " "),
    "other scheme": lambda: sign().replace("v1=", "v0="),
    "no signature": lambda: sign().partition(",")[0],
    "no time": lambda: sign().partition(",")[2],
    "other time": lambda: f"t={int(time.time()) + 1},{sign().partition(',')[2]}",
    "cut short": lambda: sign()[:-1],
    "not ASCII": lambda: "t=1,v1=é",
    "endless time": lambda: f"t={'9' * 5000},v1=a",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_anything_else_is_refused(forgery: str) -> None:
    """A signature is of these bytes, and by one of the secrets."""
    assert fault(FORGERIES[forgery]()) is SignatureFault.FORGED


@pytest.mark.parametrize("header", [None, ""])
def test_unsigned_body_is_refused(header: str | None) -> None:
    """Stripe signs every event."""
    assert fault(header) is SignatureFault.MISSING


def test_an_old_signature_is_refused() -> None:
    """Whoever recorded a webhook can't send it again later."""
    assert fault(sign(age=TOLERANCE_SECONDS + 5)) is SignatureFault.OLD
    assert fault(sign(age=TOLERANCE_SECONDS - 30)) is None


def test_one_changed_byte_is_a_forgery() -> None:
    """As is a body that means the same and is written otherwise."""
    assert fault(sign(), BODY.replace(" ", "").encode()) is SignatureFault.FORGED
    assert fault(sign(), b"\xff" + BODY.encode()) is SignatureFault.FORGED


def test_without_a_secret_nothing_is_stripes() -> None:
    """Not even what is signed with an empty one."""
    header = stripe.WebhookSignature.generate_signature_header(BODY, "")

    assert signature_fault(BODY.encode(), header, []) is SignatureFault.FORGED


@given(st.text(), st.binary())
def test_no_header_and_no_body_raise(header: str, body: bytes) -> None:
    """Nor pass."""
    assert fault(header, body) is not None


def test_secrets_are_read_from_one_setting() -> None:
    """One, or two while it is rotated; none by default."""
    read = WebhookSettings.model_validate({"stripe_webhook_secret": f" {OLD} ,{NEW}"})

    assert [each.get_secret_value() for each in read.stripe_webhook_secret] == [OLD, NEW]
    assert WebhookSettings().stripe_webhook_secret == ()


@pytest.mark.parametrize("value", ["sk_test_1", "whsec_é", "whsec_a b", "whsec_a,whsec_b,whsec_c"])
def test_another_value_is_refused_without_showing_it(value: str) -> None:
    """An API key pasted here must not reach a log."""
    with pytest.raises(ValidationError) as refusal:
        WebhookSettings.model_validate({"stripe_webhook_secret": value})

    shown = [str(error["msg"]) for error in refusal.value.errors(include_input=False)]
    assert all(value not in text for text in shown)


@pytest.mark.parametrize(
    ("key", "live"),
    [("sk_live_1", True), ("rk_live_1", True), ("sk_test_1", False), ("rk_test_live_1", False)],
)
def test_the_mode_of_a_key_is_in_its_name(key: str, live: bool) -> None:  # noqa: FBT001 - a case
    """So a service knows its mode without a call."""
    assert is_live(SecretStr(key)) is live
