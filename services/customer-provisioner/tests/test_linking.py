"""Which customers at Stripe may become a user's."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer_provisioner.linking import (
    CustomerStatus,
    FoundCustomer,
    LinkFault,
    LinkRefusedError,
    link_fault,
)

USER = UUID("018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f")


@given(st.sampled_from(CustomerStatus), st.none() | st.text() | st.just(str(USER)))
def test_only_an_existing_customer_of_no_other_user_is_linked(
    status: CustomerStatus, marked_for: str | None
) -> None:
    """A customer that is marked for another user is foreign, whatever the mark is."""
    fault = link_fault(FoundCustomer(status, marked_for), USER)

    unmarked = not marked_for or marked_for.lower() == str(USER)
    assert (fault is None) is (status is CustomerStatus.EXISTS and unmarked)


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (FoundCustomer(CustomerStatus.UNKNOWN), LinkFault.NOT_FOUND),
        (FoundCustomer(CustomerStatus.OTHER_MODE), LinkFault.OTHER_MODE),
        (FoundCustomer(CustomerStatus.DELETED), LinkFault.DELETED),
        (FoundCustomer(CustomerStatus.EXISTS, str(UUID(int=1))), LinkFault.MARKED),
        (FoundCustomer(CustomerStatus.EXISTS, str(USER).upper()), None),
        (FoundCustomer(CustomerStatus.EXISTS, ""), None),
    ],
)
def test_each_foreign_customer_has_its_reason(
    found: FoundCustomer, fault: LinkFault | None
) -> None:
    """An upper-case UUID is the same user; an empty mark is none."""
    assert link_fault(found, USER) is fault


@pytest.mark.parametrize("fault", LinkFault)
def test_a_refusal_is_dead_lettered_by_whose_customer_it_is(fault: LinkFault) -> None:
    """The user's own other customer has a reason of its own: only an operator can replace it."""
    expected = "other_customer" if fault is LinkFault.OTHER_CUSTOMER else "foreign_customer"

    assert LinkRefusedError(fault).reason == expected
