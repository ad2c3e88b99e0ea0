"""The command ``check``: everything that is wrong, named at once, whatever else is wrong."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from nexus_database import Database, revision_fault
from nexus_database.settings import DatabaseSettings
from nexus_service.console import Finding, Tone
from nexus_service.settings import SettingsError, load

SETTINGS: Final = "settings"

OwnSettingsT = TypeVar("OwnSettingsT", bound=BaseModel)

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, each fault on a line of its own, or nothing."""


def _nothing(_settings: BaseModel) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Checks(Generic[OwnSettingsT]):
    """Checks that need no more than ``settings``, so that others being wrong stops none of them.

    ``of`` makes the checks by name. ``remark`` may say instead why there is nothing to check.
    """

    name: str
    settings: type[OwnSettingsT]
    of: Callable[[OwnSettingsT], Mapping[str, Check]]
    remark: Callable[[OwnSettingsT], str | None] = _nothing


async def findings(whole: type[BaseModel], groups: Sequence[Checks[Any]]) -> list[Finding]:
    """Check the settings as a ``whole``, then everything of ``groups`` that can be asked."""
    found = [_settings_finding(whole)]
    for group in groups:
        found += await _of_group(group)
    return found


def _settings_finding(whole: type[BaseModel]) -> Finding:
    try:
        load(whole)
    except SettingsError as error:
        return Finding(SETTINGS, "\n".join(error.problems), Tone.BAD)
    return Finding(SETTINGS)


async def _of_group(group: Checks[OwnSettingsT]) -> list[Finding]:
    try:
        settings = load(group.settings)
    except SettingsError:
        return [Finding(group.name, "not asked, for want of its settings", Tone.NOTE)]
    if remark := group.remark(settings):
        return [Finding(group.name, remark, Tone.NOTE)]
    return [await _finding(name, check) for name, check in group.of(settings).items()]


async def _finding(name: str, check: Check) -> Finding:
    fault = await check()
    return Finding(name) if fault is None else Finding(name, fault, Tone.BAD)


def database_checks(service: str) -> Checks[DatabaseSettings]:
    """Return the check that a database is reached, its own and at this release's revision."""

    async def fault(settings: DatabaseSettings) -> str | None:
        database = Database(settings.database_url.get_secret_value(), name=f"{service} check")
        try:
            return await revision_fault(database, service.replace("-", "_"))
        finally:
            await database.close()

    return Checks("database", DatabaseSettings, lambda given: {"database": lambda: fault(given)})
