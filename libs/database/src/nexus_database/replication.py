"""Commits that wait for the standby although they changed nothing."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_WRITE_TO_LOG: Final = text("SELECT pg_logical_emit_message(true, 'nexus', '')")


async def commit_replicated(connection: AsyncConnection) -> None:
    """Have this transaction's commit wait for a synchronous standby, as one that wrote does.

    For whoever acks a message because its rows are there already. Their own commit may have been
    given up while it waited for the standby: PostgreSQL has then committed them locally alone, and
    they are lost if the primary is. The commit of a transaction that only read waits for nobody;
    one that has written to the log waits until all before it is replicated
    (https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION).

    A transaction that locks the rows it met (``FOR UPDATE``) has written so already.
    """
    await connection.execute(_WRITE_TO_LOG)
