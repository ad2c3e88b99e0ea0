"""The journal's one table, as its migration makes it."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
)

metadata: Final = MetaData()

meter_calls: Final = Table(
    "meter_calls",
    metadata,
    Column("identifier", Text, primary_key=True),
    Column("report_id", Uuid, nullable=False),
    Column("stripe_customer_id", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("value", BigInteger, nullable=False),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("request_digest", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("key_n", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("first_unknown_at", DateTime(timezone=True)),
    Column("answered_at", DateTime(timezone=True)),
    Column("answer", Text),
    Column("reason", Text),
)
