"""What a webhook's body says: a snapshot event or a thin one, of which only ids are read. Pure."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AliasPath, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nexus_contracts import StripeChanged
from nexus_contracts.fields import Moment
from nexus_contracts.stripe_changed import StripeEventId, StripeEventType, StripeObjectId

_OBJECT_ID: Final = TypeAdapter(StripeObjectId)
_CUSTOMER: Final = "cus_"
_LATEST: Final = 253_370_764_800  # 9999-01-01, beyond which a time is not one of Stripe's


class _Event(BaseModel):
    """What both kinds of events have."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    id: StripeEventId
    type: StripeEventType
    livemode: bool


class _Snapshot(_Event):
    """An event of API v1, with the object as it was (https://docs.stripe.com/api/events/object)."""

    object: Literal["event"]
    created: int = Field(ge=0, lt=_LATEST)
    subject: dict[str, Any] = Field(validation_alias=AliasPath("data", "object"))

    def changed(self) -> StripeChanged:
        """Return what is kept of it."""
        customer = _customer_of(self.subject)
        return StripeChanged(
            event_id=self.id,
            event_type=self.type,
            object_id=_object_id(self.subject.get("id")) or customer or self.id,
            customer_id=customer,
            livemode=self.livemode,
            created=datetime.fromtimestamp(self.created, UTC),
        )


class _Related(BaseModel):
    """The object that a thin event is about; a singleton has no id."""

    id: str | None = None


class _Thin(_Event):
    """An event of API v2 (https://docs.stripe.com/event-destinations#thin-payload)."""

    object: Literal["v2.core.event"]
    created: Moment
    related_object: _Related | None = None

    def changed(self) -> StripeChanged:
        """Return what is kept of it."""
        related = _object_id(self.related_object and self.related_object.id)
        customer = related if related is not None and related.startswith(_CUSTOMER) else None
        return StripeChanged(
            event_id=self.id,
            event_type=self.type,
            object_id=related or self.id,
            customer_id=customer,
            livemode=self.livemode,
            created=self.created,
        )


_EVENT: Final[TypeAdapter[_Snapshot | _Thin]] = TypeAdapter(
    Annotated[_Snapshot | _Thin, Field(discriminator="object")]
)


def read_webhook(body: bytes) -> StripeChanged | None:
    """Return what an event's body says; None if it is no event of Stripe's."""
    try:
        return _EVENT.validate_json(body).changed()
    except (ValidationError, RecursionError):
        return None


def _customer_of(subject: dict[str, Any]) -> str | None:
    """Return the customer that an object is or belongs to, which may be expanded."""
    customer = subject if subject.get("object") == "customer" else subject.get("customer")
    id_ = _object_id(customer.get("id") if isinstance(customer, dict) else customer)
    return id_ if id_ is not None and id_.startswith(_CUSTOMER) else None


def _object_id(value: object) -> str | None:
    try:
        return _OBJECT_ID.validate_python(value, strict=True)
    except ValidationError:
        return None
