"""The sums of all days, and sentences that say how they meet. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from usage_ingest.reconciliation import Number, as_number
from usage_ingest.statement.lines import Line, Part
from usage_ingest.statement.rows import DAY


@dataclass(slots=True)
class Sums:
    """The sums of all days, by meter or key of readings, and what is unexplained since when."""

    values: dict[tuple[str, Part, str], Number] = field(default_factory=dict)
    unexplained: list[Line] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Add a line."""
        place = (line.meter, line.part, line.state)
        self.values[place] = self.values.get(place, 0) + line.value
        if line.state == "unexplained":
            self.unexplained.append(line)

    def late(self, now: datetime, older_than: timedelta) -> bool:
        """Return whether anything of a day that ended longer ago is unexplained."""
        return any(now - (each.day + DAY) > older_than for each in self.unexplained)

    def states(self) -> Sequence[str]:
        """Return the states that occur, each once, in their order."""
        return list(dict.fromkeys(state for (_, _, state) in self.values))

    def sentences(self) -> Iterator[str]:
        """Yield, for each meter and key, what it was recorded, reported and counted."""
        for meter in sorted({place[0] for place in self.values if place[0]}):
            yield from self._meet(meter)

    def _meet(self, meter: str) -> Iterator[str]:
        recorded, claimed = self._of(meter, Part.RECORDED), self._of(meter, Part.CLAIMED)
        reported, counted = self._of(meter, Part.REPORTED), self._of(meter, Part.COUNTED)
        if recorded:
            yield f"{meter}: recorded {_total(recorded)} = {as_sum(recorded)}"
        superseded = reported.pop("superseded", 0)
        if reported:
            again = f"; {digits(superseded)} were reported again" if superseded else ""
            made_of = f"{as_sum(claimed)} = " if claimed else ""
            total = digits(sum(reported.values()))
            yield f"{meter}: in reports {total} = {made_of}{as_sum(reported)}{again}"
        if counted:
            total = digits(counted.pop("counted", 0))
            made_of = as_sum({"reported": reported.get("reported", 0)} | counted)
            yield f"{meter}: counted by Stripe {total} = {made_of}"
        invoice = self._of(meter, Part.INVOICE)
        unknown_yet = invoice.pop("unknown", 0)
        if invoice:
            yield f"{meter}: after its period, on no invoice or in doubt: {as_sum(invoice)}"
        if unknown_yet:
            yield f"{meter}: on which invoice is not known yet: {digits(unknown_yet)}"

    def _of(self, meter: str, part: Part) -> dict[str, Number]:
        return {
            state: value
            for (of, its, state), value in self.values.items()
            if of == meter and its is part
        }


def _total(values: Mapping[str, Number]) -> str:
    return digits(sum(values.values()))


def as_sum(values: Mapping[str, Number]) -> str:
    """Return amounts by their names, as a sum: ``reported 8 - not_shown 3``."""
    terms = ""
    for state, value in values.items():
        sign = " - " if value < 0 else " + "
        terms += f"{sign}{state} {digits(abs(value))}"
    return terms.removeprefix(" + ").lstrip()


def digits(value: Number) -> str:
    """Return an amount in digits, without a fraction if it has none."""
    return str(as_number(value))
