"""The command ``check``: it reports all faults at once; one fault hides no other."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from nexus_database import Database, revision_fault
from nexus_database.settings import DatabaseSettings
from nexus_messaging.errors import PublishError
from nexus_messaging.publisher import Publisher
from nexus_messaging.settings import BrokerSettings
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
    """

    name: str
    settings: type[OwnSettingsT]
    of: Callable[[OwnSettingsT], Mapping[str, Check]]
    remark: Callable[[OwnSettingsT], str | None] = _no_remark


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
    return [await _run_check(name, check) for name, check in group.of(settings).items()]


async def _run_check(name: str, check: Check) -> Finding:
    fault = await check()
    return Finding(name) if fault is None else Finding(name, fault, Tone.BAD)


def database_checks(service: str) -> Checks[DatabaseSettings]:
    """Return the check of the database: reachable, of this service, at a supported revision."""

    async def fault(settings: DatabaseSettings) -> str | None:
        url = settings.database_url.get_secret_value()
        async with Database(url, name=f"{service} check") as database:
            return await revision_fault(database, service.replace("-", "_"))

    return Checks("database", DatabaseSettings, lambda given: {"database": lambda: fault(given)})


def publishing_checks(program: str) -> Checks[BrokerSettings]:
    """Return the check of a program that only publishes: can it log in at the broker?"""

    async def fault(settings: BrokerSettings) -> str | None:
        url = settings.amqp_url.get_secret_value()
        try:
            publisher = await Publisher.connect(url, name=f"{program} check")
        except PublishError as error:
            return str(error)
        await publisher.close()
        return None

    return Checks("broker", BrokerSettings, lambda given: {"broker": lambda: fault(given)})
