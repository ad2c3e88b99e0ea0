"""The command ``make-api-key`` of services with an HTTP API."""

import argparse
from typing import Final

from nexus_messaging.topology import OUTSIDE_EVENTS
from nexus_service.api_keys import ANY, ASSIGNING, RIGHTS, make_api_key
from nexus_service.command import SUCCESS, Command, NoSettings, utf_8
from nexus_service.console import show_lines
from nexus_service.settings import SettingsError

TYPES: Final = (
    ANY,
    *sorted(
        {name for data in OUTSIDE_EVENTS for name in (data.TYPE, data.TYPE.rpartition(".")[0])}
    ),
    ASSIGNING,
    *RIGHTS,
)
"""What a key may be limited to: a name means every version of the event. A right to read is granted
by its name alone. To say who pays for a user is in no key that is not limited to it."""


async def _make(_settings: NoSettings, parsed: argparse.Namespace) -> int:
    try:
        secret, key = make_api_key(parsed.name, parsed.source or [ANY], parsed.type or [ANY])
    except ValueError as error:
        raise SettingsError(str(error)) from None
    show_lines(
        (
            f"key, shown only now: {secret}",
            f"entry for API_KEYS:  {key.configured}",
            "To replace a key, add the new entry, give the new key out, then remove the old entry.",
        )
    )
    return SUCCESS


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=utf_8, help="who gets the key; keys of one name share limits")
    for option, what, choices in (
        ("--source", "a CloudEvents source", None),
        ("--type", "an event name or type, or a right to read", TYPES),
    ):
        parser.add_argument(
            option,
            action="append",
            type=utf_8,
            choices=choices,
            metavar="NAME",
            help=f"{what} that it has; may be given again (any to publish)",
        )


MAKE_API_KEY: Final = Command(
    "make-api-key",
    "make a key for the HTTP API: print it once, and its entry for API_KEYS, which has only a hash",
    NoSettings,
    _make,
    _arguments,
    (
        "{} hub --source hub --type tool.executed",
        "{} platform --source web --type user.created",
        "{} gate --type entitlements.read",
    ),
)
