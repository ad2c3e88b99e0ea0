"""An operator links a user to a customer that exists at Stripe."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from customer_provisioner.linking import LinkFault, LinkRefusedError, link_fault
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import StripeApi
from nexus_contracts import UserCreatedV2


class NotLinkedError(Exception):
    """The customer is not linked; the text says what the operator can do."""


async def link(
    user_id: UUID,
    customer_id: str,
    *,
    replace: bool,
    reader: ProfileReader,
    profiles: ProfileWriter,
    stripe: StripeApi,
    provisioner: Provisioner,
    now: Callable[[], datetime],
) -> str:
    """Link a customer to a known or unknown user; ``replace`` the customer that the user has.

    Nothing is changed for a customer that can't be linked.

    Returns:
        What was done, in words.

    Raises:
        LinkRefusedError: the customer can't be this user's.
        NotLinkedError: the user has another customer, or the profile changed meanwhile.
        TransientError: not yet; the running service goes on with it.
        CircuitOpenError: Stripe is not called now.
        DatabaseUnavailableError: the database can't be used.
    """
    profile = await reader.find(user_id)
    present = profile.stripe_customer_id if profile else None
    if present == customer_id:
        return f"{customer_id} is this user's customer already"
    fault = link_fault(await stripe.retrieve(customer_id), user_id)
    if fault is None and await profiles.is_taken(customer_id, user_id):
        fault = LinkFault.TAKEN
    if fault is not None:
        raise LinkRefusedError(fault)

    if profile is None or present is None:
        await profiles.keep(UserCreatedV2(user_id=user_id, stripe_customer_id=customer_id), now())
    elif not replace:
        raise NotLinkedError(f"the user has the customer {present}; --replace bills another")
    elif not await profiles.begin_generation(profile, now(), link_to=customer_id):
        raise NotLinkedError("the profile changed meanwhile: see explain")

    got = await provisioner.provision(user_id)
    if got != customer_id:
        raise NotLinkedError(f"an open attempt ended with the customer {got}: see explain")
    return f"{customer_id} is this user's customer now; the running service announces it"
