"""What a check finds: lost, billed twice, or unaccounted for."""

from dataclasses import dataclass
from enum import StrEnum

from typing_extensions import override


class Violation(StrEnum):
    """The kind of a finding."""

    LOST = "lost"
    DOUBLE_BILLED = "double_billed"
    UNACCOUNTED = "unaccounted"


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not add up, and for how many messages or runs."""

    violation: Violation
    what: str
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings; there should be none."""

    findings: tuple[Finding, ...]

    def count(self, violation: Violation) -> int:
        """Return how many messages or runs have this violation."""
        return sum(each.runs for each in self.findings if each.violation is violation)

    @property
    def open(self) -> int:
        """How many messages and runs do not add up, or not yet."""
        return sum(each.runs for each in self.findings)

    @property
    def clean(self) -> bool:
        """Whether everything adds up."""
        return not self.findings

    @override
    def __str__(self) -> str:
        return " ".join(f"{violation.value}={self.count(violation)}" for violation in Violation)
