"""PostgreSQL: connections, transactions, locks, size, as its exporter tells them."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section

NAME: Final = "postgres"
TITLE: Final = "Metering: PostgreSQL"
DESCRIPTION: Final = "The server that holds the ledger, the journal and the profiles."

# Templates are nobody's, and what belongs to no database has an empty name.
_DATABASES: Final = '{datname!~"template.*|"}'


def _by_database(metric: str, *, rate: bool = False) -> Query:
    series = f"rate({metric}{_DATABASES}[$__rate_interval])" if rate else f"{metric}{_DATABASES}"
    return Query(f"sum by (datname) ({series})", "{{datname}}")


_CONNECTIONS = Section(
    "Connections",
    (
        Panel(
            "Not answering",
            "Exporters that PostgreSQL does not let in, or does not answer.",
            "short",
            (Query("count(pg_up == 0) or vector(0)", "not answering"),),
            "postgresdown",
            worry_from=1,
            width=4,
        ),
        Panel(
            "Connections",
            "Each service keeps a small pool. At the limit nobody new is let in.",
            "short",
            (
                _by_database("pg_stat_activity_count"),
                Query("max(pg_settings_max_connections)", "limit"),
            ),
            "postgresconnectionshigh",
            width=20,
        ),
    ),
)

_WORK = Section(
    "Work",
    (
        Panel(
            "Commits",
            "Transactions that ended well; usage-ingest makes one for each batch.",
            "ops",
            (_by_database("pg_stat_database_xact_commit", rate=True),),
            "scaling",
        ),
        Panel(
            "Rollbacks",
            "Transactions that ended badly. A few are probes and races; many have a cause in a"
            " service's log.",
            "ops",
            (_by_database("pg_stat_database_xact_rollback", rate=True),),
            "workstandsstill",
        ),
        Panel(
            "Longest transaction",
            "Age of the oldest open one. Above a minute somebody holds locks by hand, or a batch"
            " hangs.",
            "s",
            (
                Query(
                    f"max by (datname) (pg_stat_activity_max_tx_duration{_DATABASES})",
                    "{{datname}}",
                ),
            ),
            "usageunclaimed",
        ),
        Panel(
            "Locks",
            "By mode. An accessexclusivelock that stays is a migration or a person.",
            "short",
            (Query(f"sum by (mode) (pg_locks_count{_DATABASES})", "{{mode}}"),),
            "usageunclaimed",
        ),
        Panel(
            "Deadlocks",
            "Each ended one transaction, which is repeated. There should be none.",
            "ops",
            (_by_database("pg_stat_database_deadlocks", rate=True),),
            "workstandsstill",
        ),
        Panel(
            "Size",
            "On disk, indexes included. The ledger only grows.",
            "bytes",
            (_by_database("pg_database_size_bytes"),),
            "scaling",
        ),
    ),
)

SECTIONS: Final = (_CONNECTIONS, _WORK)
