"""PostgreSQL: connections, transactions, locks and size, from its exporter."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section

NAME: Final = "postgres"
TITLE: Final = "Metering: PostgreSQL"
DESCRIPTION: Final = "The server that holds the ledger, the journal and the profiles."

# Template databases are unused, and figures of no database have an empty name.
_DATABASES: Final = '{datname!~"template.*|"}'


def _by_database(metric: str, *, rate: bool = False) -> Query:
    series = f"rate({metric}{_DATABASES}[$__rate_interval])" if rate else f"{metric}{_DATABASES}"
    return Query(f"sum by (datname) ({series})", "{{datname}}")


_CONNECTIONS = Section(
    "Connections",
    (
        Panel(
            "Not answering",
            "Exporters whose login PostgreSQL refuses or does not answer.",
            "short",
            (Query("count(pg_up == 0) or vector(0)", "not answering"),),
            "postgresdown",
            threshold=1,
            width=4,
        ),
        Panel(
            "Connections",
            "Each service keeps a small pool. At the limit new connections are refused.",
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
            "Committed transactions; usage-ingest makes one for each batch.",
            "ops",
            (_by_database("pg_stat_database_xact_commit", rate=True),),
            "scaling",
        ),
        Panel(
            "Rollbacks",
            "Transactions rolled back. A few are probes and conflicts; the cause of many is in a"
            " service's log.",
            "ops",
            (_by_database("pg_stat_database_xact_rollback", rate=True),),
            "workstalled",
        ),
        Panel(
            "Longest transaction",
            "Age of the oldest open transaction. Above a minute an operator holds locks, or a batch"
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
            "By mode. A lasting accessexclusivelock is a migration or an operator's session.",
            "short",
            (Query(f"sum by (mode) (pg_locks_count{_DATABASES})", "{{mode}}"),),
            "usageunclaimed",
        ),
        Panel(
            "Deadlocks",
            "Each aborted one transaction, which is retried. There should be none.",
            "ops",
            (_by_database("pg_stat_database_deadlocks", rate=True),),
            "workstalled",
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
