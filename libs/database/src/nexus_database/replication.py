"""Commits that wait for the standby even if the transaction changed nothing."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_WRITE_TO_LOG: Final = text("SELECT pg_logical_emit_message(true, 'nexus', '')")


async def commit_replicated(connection: AsyncConnection) -> None:
    """Make the commit of this transaction wait for a synchronous standby, as a writing one does.

    Needed before a message is acked because its rows already exist. The commit that stored them may
    have been interrupted while it waited for the standby. PostgreSQL has then committed the rows
    only locally, and they are lost if the primary is lost. The commit of a read-only transaction
    waits for no standby. After a write to the log, it waits until all earlier log is replicated
    (https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION).

    A transaction that locks existing rows (``FOR UPDATE``) has already written to the log.
    """
    await connection.execute(_WRITE_TO_LOG)
