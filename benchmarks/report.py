"""The results of a comparison as JSON, as a table, and as a plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from chart import Bar, chart
from harness import Cost, table
from ways import CELERY, DRAMATIQ, LIMIT, NAIVE, ONE, TWO, WAYS

Turn: TypeAlias = Cost | str
"""What a turn of a way cost, or why it has no figure."""

RATIOS: Final = {"naive": NAIVE, "limit": LIMIT, "celery": CELERY, "dramatiq": DRAMATIQ}
"""What usage-ingest is compared with, by the name of the ratio."""


@dataclass(frozen=True, slots=True)
class Report:
    """The circumstances of a run, and the turns of each way."""

    about: Mapping[str, Any]
    turns: Mapping[str, Sequence[Turn]]

    @property
    def costs(self) -> dict[str, Cost]:
        """The medians of each way that has figures."""
        rounds = {name: _measured(turns) for name, turns in self.turns.items()}
        return {name: Cost.median(its) for name, its in rounds.items() if its}

    @property
    def missing(self) -> dict[str, list[str]]:
        """Why there are turns without a figure, by way."""
        reasons = {n: [t for t in turns if isinstance(t, str)] for n, turns in self.turns.items()}
        return {name: its for name, its in reasons.items() if its}

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """Events per second of one and of two processes of ours, as multiples of others'."""
        rates = {name: cost.rate for name, cost in self.costs.items()}
        ours = {"one_process": ONE, "two_processes": TWO}
        return {
            f"ratio_to_{name}": {
                processes: round(rates[our] / rates[other], 2)
                for processes, our in ours.items()
                if our in rates and other in rates
            }
            for name, other in RATIOS.items()
        }

    @property
    def json(self) -> str:
        """All figures, for programs."""
        costs = self.costs
        found = {
            **self.about,
            **self.ratios,
            "events_per_second": {name: round(cost.rate) for name, cost in costs.items()},
            "cpu_us_per_event": {
                name: {part: round(each, 1) for part, each in cost.micros.items()}
                for name, cost in costs.items()
            },
            "rounds_measured": {name: len(_measured(self.turns[name])) for name in costs},
            "no_figure": self.missing,
        }
        return json.dumps(found, indent=2) + "\n"

    @property
    def markdown(self) -> str:
        """The table, below lines that say how it was measured and what the ratio is to."""
        costs = self.costs
        header = ["way", "events/s", "python µs", "broker µs", "postgres µs", "times as fast"]
        rows = [
            [
                WAYS[name].title,
                f"{cost.rate:,.0f}",
                *(f"{each:,.0f}" for each in cost.micros.values()),
                f"{cost.rate / costs[NAIVE].rate:.1f}" if NAIVE in costs else "",
            ]
            for name, cost in costs.items()
        ]
        gaps = "".join(
            f"- {WAYS[name].title}: {len(reasons)} of {len(self.turns[name])} turns have no figure:"
            f" {'; '.join(sorted(set(reasons)))}\n"
            for name, reasons in self.missing.items()
        )
        caption = f'{self._circumstances} "Times as fast" compares with {WAYS[NAIVE].title}.'
        return f"{caption}\n\n{table(header, rows)}" + (f"\n{gaps}" if gaps else "")

    @property
    def svg(self) -> str:
        """The plot: events per second, with the processor time of all parts."""
        bars = [
            Bar(
                WAYS[name].title,
                cost.rate,
                f"{cost.rate:,.0f}/s, {sum(cost.micros.values()):,.0f} µs",
                highlighted=WAYS[name].ours,
            )
            for name, cost in self.costs.items()
        ]
        subject = "Tool runs recorded per second, and processor time of all parts for each"
        return chart(subject, bars)

    @property
    def _circumstances(self) -> str:
        about, of = self.about, self.about["versions"]
        load = f"{about['load_average_before']} before and {about['load_average_after']} after"
        medians = f"medians of {about['rounds']} rounds" if about["rounds"] > 1 else "one round"
        peers = "".join(f", {name.title()} {of[name]}" for name in (CELERY, DRAMATIQ) if name in of)
        return (
            f"{about['date']}: {medians}, {about['cores']} cores, load"
            f" average {load}, Python {of['python']}, RabbitMQ {of['rabbitmq']}, PostgreSQL"
            f" {of['postgresql']}{peers}; {about['seconds']} s in all."
        )


def write(report: Report, folder: Path) -> None:
    """Write `latest.json`, `latest.md` and `latest.svg` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, text in (("json", report.json), ("md", report.markdown), ("svg", report.svg)):
        (folder / f"latest.{kind}").write_text(text, encoding="utf-8")


def _measured(turns: Sequence[Turn]) -> list[Cost]:
    return [turn for turn in turns if isinstance(turn, Cost)]
