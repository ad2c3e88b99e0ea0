"""The calls about customers; each response becomes a result or an error."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import stripe
from pydantic import Field

from customer_provisioner.changes import Send
from customer_provisioner.linking import (
    CustomerStatus,
    FoundCustomer,
    LinkRefusedError,
    link_fault,
)
from customer_provisioner.profile import Create, Link, LookUp, mark
from customer_provisioner.stripe.calls import StripeCalls
from customer_provisioner.stripe.responses import NotFoundError, OtherModeError
from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason
from nexus_stripe.bodies import Body, Id, Item, Page, every_item, read

LOOK_UP_PAGES: Final = 1000
"""Pages of a list that a look-up reads: 100,000 customers, created within 22 hours.

If there are more, the look-up fails and is repeated: search finds the customer after its lag.
"""


class StripeApi:
    """Calls Stripe once for each method call: the caller decides whether to repeat.

    Every method that calls raises what ``StripeCalls.call`` raises.
    """

    def __init__(self, calls: StripeCalls) -> None:
        self._calls = calls
        self._customers = calls.v1.customers

    def require_closed(self) -> None:
        """Return if the circuit breaker lets a call through.

        Raises:
            CircuitOpenError: it does not.
        """
        self._calls.require_closed()

    async def create(self, step: Create) -> str:
        """Create the customer of ``step`` and return its id; repeated, it is the same customer.

        Raises:
            KeySpentError: look for the customer, then use a new key.
        """
        params: Any = dict(step.body)

        async def create() -> str:
            customer = await self._customers.create_async(params, {"idempotency_key": step.key})
            return read(_Customer, customer).id

        return await self._calls.call("create", str(step.attempt.user_id), create)

    async def link(self, step: Link) -> str:
        """Mark the customer of ``step`` as the user's; return its id. A repetition is harmless.

        Raises:
            LinkRefusedError: it can't be this user's.
            KeySpentError: look for the customer of a creation under this key, then use a new key.
        """
        user_id, customer_id = step.attempt.user_id, step.customer_id
        fault = link_fault(await self.retrieve(customer_id), user_id)
        if fault is not None:
            raise LinkRefusedError(fault)
        params: Any = mark(user_id)

        async def link() -> str:
            answer = await self._customers.update_async(
                customer_id, params, {"idempotency_key": step.key}
            )
            return read(_Customer, answer).id

        return await self._calls.call("link", str(user_id), link)

    async def update(self, step: Send) -> None:
        """Give the customer of ``step`` what has changed; a repetition is harmless.

        Raises:
            PermanentError: also, as ``no_such_customer``, if the customer was deleted.
        """
        params: Any = dict(step.body)

        async def update() -> None:
            read(_Customer, await self._customers.update_async(step.customer_id, params))

        try:
            await self._calls.call("update", str(step.user_id), update)
        except NotFoundError as error:
            raise PermanentError(Reason.NO_SUCH_CUSTOMER, str(error)) from None

    async def retrieve(self, customer_id: str) -> FoundCustomer:
        """Return what Stripe says about a customer's id."""

        async def retrieve() -> _RetrievedCustomer:
            customer = read(_RetrievedCustomer, await self._customers.retrieve_async(customer_id))
            if customer.id != customer_id:
                raise ValueError("another customer than the one requested")
            return customer

        try:
            customer = await self._calls.call("retrieve", customer_id, retrieve)
        except OtherModeError:
            return FoundCustomer(CustomerStatus.OTHER_MODE)
        except NotFoundError:
            return FoundCustomer(CustomerStatus.UNKNOWN)
        if customer.deleted:
            return FoundCustomer(CustomerStatus.DELETED)
        if self._calls.live not in (None, customer.livemode):
            return FoundCustomer(CustomerStatus.OTHER_MODE)
        return FoundCustomer(CustomerStatus.EXISTS, (customer.metadata or {}).get("user_id"))

    async def find(self, step: LookUp) -> list[str]:
        """Return the ids of the customers marked with the user, the oldest first.

        Search finds each, but lags by about a minute. If it finds none, the list of all customers
        that were created when this one can have been follows, which does not lag.
        """
        user_id = str(step.attempt.user_id)
        present = FoundCustomer(CustomerStatus.EXISTS, user_id)  # search may have a former mark
        try:
            searched = await self._calls.call("search", user_id, lambda: self._search(user_id))
        except PermanentError:
            # Some accounts have no search (https://docs.stripe.com/search); all have lists.
            searched = []
        found = [
            each
            for each in searched
            if each.id not in step.former and await self.retrieve(each.id) == present
        ]
        if not found:
            within = (step.created_from, step.created_to)
            listed = await self._calls.call("list", user_id, lambda: self._list(*within))
            marked = [each for each in listed if (each.metadata or {}).get("user_id") == user_id]
            found = [each for each in marked if each.id not in step.former]
        return [each.id for each in sorted(found, key=lambda each: (each.created, each.id))]

    async def _search(self, user_id: str) -> "list[_Customer]":
        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"query": f"metadata['user_id']:'{user_id}'", **cursor}
            return await self._customers.search_async(params)

        return await every_item(Page[_Customer], page)

    async def _list(self, start: datetime, end: datetime) -> "list[_Customer]":
        created = {"gte": int(start.timestamp()), "lte": int(end.timestamp())}

        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"created": created, **cursor}
            return await self._customers.list_async(params)

        return await every_item(Page[_Customer], page, most_pages=LOOK_UP_PAGES)


class _Customer(Item):
    """A customer in a response; ``created`` in Unix seconds."""

    object: Literal["customer"]
    created: int
    metadata: Annotated[dict[str, str] | None, Field(repr=False)] = None


class _RetrievedCustomer(Body):
    """What Stripe shows of a customer by its id, deleted or not."""

    object: Literal["customer"]
    id: Id
    deleted: bool = False
    livemode: bool = False
    metadata: Annotated[dict[str, str] | None, Field(repr=False)] = None
