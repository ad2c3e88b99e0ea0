"""Customers, as the emulator and Stripe both have them."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


async def test_a_created_customer_has_what_was_given(client: Any, conforms: Conforms) -> None:
    """Creation answers with the whole customer object."""
    email = f"{uuid4().hex}@example.org"

    created = await client.v1.customers.create_async(
        {"email": email, "name": "Ada", "metadata": {"user_id": "u1"}}
    )
    await client.v1.customers.delete_async(created.id)

    conforms("POST /v1/customers", created.last_response.data)
    assert (created.email, created.name) == (email, "Ada")
    assert created.metadata["user_id"] == "u1"
    assert created.id.startswith("cus_")


async def test_a_customer_can_be_retrieved(client: Any, customer: Any, conforms: Conforms) -> None:
    """Retrieval answers with the same object as creation."""
    found = await client.v1.customers.retrieve_async(customer.id)

    conforms("GET /v1/customers/{customer}", found.last_response.data)
    assert (found.id, found.email) == (customer.id, customer.email)


async def test_an_update_changes_only_what_it_names(
    client: Any, customer: Any, conforms: Conforms
) -> None:
    """Fields that an update does not name stay, and metadata is merged key by key."""
    updated = await client.v1.customers.update_async(
        customer.id, {"name": "Ada", "metadata": {"plan": "pro"}}
    )

    conforms("POST /v1/customers/{customer}", updated.last_response.data)
    assert (updated.name, updated.email) == ("Ada", customer.email)
    assert updated.metadata.to_dict() == {**customer.metadata.to_dict(), "plan": "pro"}


async def test_an_empty_value_removes_a_metadata_key(client: Any, customer: Any) -> None:
    """An empty string unsets: a metadata key, or a field such as the name."""
    await client.v1.customers.update_async(customer.id, {"name": "Ada"})

    updated = await client.v1.customers.update_async(
        customer.id, {"name": "", "metadata": {"user_id": ""}}
    )

    assert updated.name is None
    assert updated.metadata.to_dict() == {}


async def test_customers_are_listed_by_exact_email(
    client: Any, customer: Any, conforms: Conforms
) -> None:
    """The e-mail filter is case-sensitive and matches whole addresses only."""
    same = await client.v1.customers.list_async({"email": customer.email})
    other_case = await client.v1.customers.list_async({"email": customer.email.lower()})

    conforms("GET /v1/customers", same.last_response.data)
    assert [found.id for found in same.data] == [customer.id]
    assert other_case.data == []


async def test_a_list_is_read_page_by_page_in_both_directions(
    client: Any,
) -> None:
    """Cursors lead from the newest customer to the oldest and back."""
    email = f"{uuid4().hex}@example.org"
    created = [(await client.v1.customers.create_async({"email": email})).id for _ in range(3)]
    customers = client.v1.customers

    first = await customers.list_async({"email": email, "limit": 2})
    cursor = first.data[-1].id
    second = await customers.list_async({"email": email, "limit": 2, "starting_after": cursor})
    cursor = second.data[0].id
    back = await customers.list_async({"email": email, "limit": 2, "ending_before": cursor})
    for id_ in created:
        await customers.delete_async(id_)

    assert ([found.id for found in first.data], first.has_more) == (created[:0:-1], True)
    assert ([found.id for found in second.data], second.has_more) == ([created[0]], False)
    assert ([found.id for found in back.data], back.has_more) == (created[:0:-1], False)


async def test_customers_are_listed_by_the_time_of_their_creation(
    client: Any, customer: Any, conforms: Conforms
) -> None:
    """Both ends of a range may belong to it; metadata is in the list, which does not lag."""

    async def listed(**created: int) -> list[Any]:
        found = await client.v1.customers.list_async({"created": created, "limit": 100})
        conforms("GET /v1/customers", found.last_response.data)
        return [each for each in found.data if each.id == customer.id]

    (inside,) = await listed(gte=customer.created, lte=customer.created)

    assert inside.metadata["user_id"] == customer.metadata["user_id"]
    assert await listed(gt=customer.created) == []
    assert await listed(lt=customer.created) == []


async def test_a_customer_names_its_mode(client: Any, customer: Any) -> None:
    """Both keys of this suite are of the test mode."""
    found = await client.v1.customers.retrieve_async(customer.id)

    assert found.livemode is False


async def test_a_customer_is_found_by_its_metadata_in_the_end(
    client: Any, customer: Any, conforms: Conforms, eventually: Eventually
) -> None:
    """The search finds a customer by a metadata value, some time after its creation."""
    query = f"metadata['user_id']:'{customer.metadata['user_id']}'"

    async def found() -> bool:
        result = await client.v1.customers.search_async({"query": query})
        conforms("GET /v1/customers/search", result.last_response.data)
        return [hit.id for hit in result.data] == [customer.id]

    await eventually(found)


async def test_a_deleted_customer_leaves_a_tombstone(
    client: Any, customer: Any, conforms: Conforms
) -> None:
    """Deletion and every retrieval after it answer only that it is deleted."""
    deleted = await client.v1.customers.delete_async(customer.id)
    found = await client.v1.customers.retrieve_async(customer.id)
    listed = await client.v1.customers.list_async({"email": customer.email})

    conforms("DELETE /v1/customers/{customer}", deleted.last_response.data)
    tombstone = {"id": customer.id, "object": "customer", "deleted": True}
    assert deleted.last_response.data == tombstone
    assert found.last_response.data == tombstone
    assert listed.data == []


async def test_a_deleted_customer_cannot_be_updated(client: Any, customer: Any) -> None:
    """After its deletion a customer can be retrieved and not updated."""
    await client.v1.customers.delete_async(customer.id)

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.customers.update_async(customer.id, {"name": "Ada"})

    assert (refusal.value.http_status, refusal.value.code) == (404, "resource_missing")


async def test_an_unknown_customer_is_a_404(client: Any, conforms: Conforms) -> None:
    """An id in the path that names nothing is a 404 about the parameter ``id``."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.customers.retrieve_async("cus_doesnotexist")

    conforms("error", refusal.value.json_body)
    assert (refusal.value.http_status, refusal.value.code) == (404, "resource_missing")
    assert refusal.value.param == "id"
    assert refusal.value.user_message == "No such customer: 'cus_doesnotexist'"
