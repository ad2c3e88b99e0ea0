"""The tables of the database, as the migrations leave them."""

from dataclasses import fields
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row

from customer_provisioner.profile import Profile, State

_moment: Final = DateTime(timezone=True)
_metadata: Final = MetaData()

user_profiles: Final = Table(
    "user_profiles",
    _metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("name", Text),
    Column("state", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("create_request", JSONB, nullable=False),
    Column("key_n", Integer, nullable=False),
    Column("key_spent", Boolean, nullable=False),
    Column("call_started_at", _moment),
    Column("claimed_until", _moment),
    Column("due_at", _moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_fault", Text),
    Column("refused_as", Text),
    Column("stripe_customer_id", Text),
    Column("provisioned_at", _moment),
    Column("announced_generation", Integer, nullable=False),
    Column("traceparent", Text),
    Column("created_at", _moment, nullable=False),
    Column("updated_at", _moment, nullable=False),
)

provisioning_steps: Final = Table(
    "provisioning_steps",
    _metadata,
    Column("step_id", BigInteger, Identity(always=True), primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("detail", Text),
    Column("at", _moment, nullable=False),
)

PROFILE_COLUMNS: Final = tuple(user_profiles.c[field.name] for field in fields(Profile))


def profile_of(row: Row[Any]) -> Profile:
    """Return the profile in a row of ``PROFILE_COLUMNS``."""
    values = dict(zip(row._fields, row, strict=True))
    return Profile(**{**values, "state": State(row.state)})
