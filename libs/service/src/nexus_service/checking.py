"""The command ``check``: it reports all faults at once; one fault hides no other."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from nexus_service.console import Finding, Tone
from nexus_service.settings import SettingsError, load

SETTINGS: Final = "settings"

OwnSettingsT = TypeVar("OwnSettingsT", bound=BaseModel)

Check = Callable[[], Awaitable[str | None]]
"""Returns the faults, one per line, or ``None``."""


def _no_remark(_settings: BaseModel) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Checks(Generic[OwnSettingsT]):
    """Checks that need only ``settings``: they run even if other settings are invalid.

    ``of`` returns the checks by name. ``remark`` may return the reason why there are none.
    ``tone`` is that of what they find: a note, where the service works in spite of it.
    """

    name: str
    settings: type[OwnSettingsT]
    of: Callable[[OwnSettingsT], Mapping[str, Check]]
    remark: Callable[[OwnSettingsT], str | None] = _no_remark
    tone: Tone = Tone.BAD


async def run_checks(settings: type[BaseModel], groups: Sequence[Checks[Any]]) -> list[Finding]:
    """Check all ``settings``, then run each of ``groups`` whose own settings are valid."""
    findings = [_check_settings(settings)]
    for group in groups:
        findings += await _check_group(group)
    return findings


def _check_settings(settings: type[BaseModel]) -> Finding:
    try:
        load(settings)
    except SettingsError as error:
        return Finding(SETTINGS, "\n".join(error.problems), Tone.BAD)
    return Finding(SETTINGS)


async def _check_group(group: Checks[OwnSettingsT]) -> list[Finding]:
    try:
        settings = load(group.settings)
    except SettingsError:
        return [Finding(group.name, "not checked: its settings are missing or invalid", Tone.NOTE)]
    if remark := group.remark(settings):
        return [Finding(group.name, remark, Tone.NOTE)]
    return [await _run_check(*each, group.tone) for each in group.of(settings).items()]


async def _run_check(name: str, check: Check, tone: Tone) -> Finding:
    fault = await check()
    return Finding(name) if fault is None else Finding(name, fault, tone)
