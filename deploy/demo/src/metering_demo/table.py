"""The demo's output: a table per customer, the dead letters, and the last line."""

from collections.abc import Iterator

from metering_demo.counting import Count


def lines(count: Count) -> Iterator[str]:
    """Yield the table per customer and the dead letters by queue and reason."""
    yield f"{'customer':<24}{'runs':>6}{'ledger':>8}{'stripe':>8}{'rejected':>10}"
    for each in count.customers:
        mark = "" if each.agrees else "  <- differs"
        yield (
            f"{each.customer:<24}{each.runs:>6}{each.ledger:>8}{each.stripe:>8}"
            f"{each.rejected:>10}{mark}"
        )
    yield ""
    yield f"{'dead letters of':<36}{'reason':<24}{'runs':>6}"
    for (queue, reason), runs in sorted(count.dead.items()):
        yield f"{queue:<36}{reason:<24}{runs:>6}"
    yield ""


def last_line(count: Count, published: int, seconds: float) -> str:
    """Return the last line: every count in tool runs, and the seconds the demo took."""
    return (
        f"demo: published={published} recorded={count.recorded} duplicates={count.duplicates}"
        f" unreadable={count.unreadable} reported={count.reported} rejected={count.rejected}"
        f" in_doubt={count.in_doubt} waiting={count.waiting} dead_lettered={count.dead_lettered}"
        f" lost={count.lost(published)} double_billed={count.double_billed}"
        f" seconds={seconds:.0f}"
    )


def holds(count: Count, published: int) -> bool:
    """Return whether everything published is accounted for, and each customer's sums agree."""
    return (
        published == count.recorded + count.duplicates + count.unreadable
        and count.recorded == count.reported + count.rejected + count.in_doubt
        and count.waiting == 0
        and all(each.agrees for each in count.customers)
    )
