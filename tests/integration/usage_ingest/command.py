"""The commands of usage-ingest, as an operator runs them in a pipe."""

from nexus_database import Database
from support.commands import in_a_pipe
from support.databases import url_of
from support.leak_check import leaks, secrets_in


def settings_of(database: Database, amqp_url: str = "") -> dict[str, str]:
    """Return the settings of the commands."""
    url = url_of(database)
    return {"DATABASE_URL": url, "AMQP_URL": amqp_url}


async def command(database: Database, *arguments: str, amqp_url: str = "") -> tuple[int, str, str]:
    """Run `usage-ingest` in a pipe and return its exit code, output and errors."""
    settings = settings_of(database, amqp_url)
    shown = await in_a_pipe("usage_ingest", *arguments, **settings)
    assert leaks({"output": shown.raw + shown.errors}, secrets_in(settings)) == []
    assert not shown.coloured
    return shown.code, shown.raw, shown.errors
