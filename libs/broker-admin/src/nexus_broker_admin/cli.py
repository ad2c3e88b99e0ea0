"""The command line ``nexus-topology``: arguments, settings, output and exit codes."""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from nexus_broker_admin.commands import apply_topology, drain, read_drift
from nexus_broker_admin.definitions import definitions
from nexus_broker_admin.drift import Difference, Standing
from nexus_broker_admin.management import ManagementAddressError, ManagementError, connect
from nexus_messaging.description import DEFAULT_BROKER_VERSION, metering_topology
from nexus_messaging.topology import RETIRED_TIERS, TIERS, VHOST
from nexus_service.console import Tone, show_error, show_line
from nexus_service.program import Parser, run_program
from nexus_service.settings import SettingsError, read_value

SUCCESS, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

DRAINABLE = tuple(tier.name for tier in (*TIERS, *RETIRED_TIERS))

MAX_SCALE = int(timedelta(milliseconds=2**32 - 1) / TIERS[-1].wait)
"""The largest factor on the tiers' waits: the broker's largest ``message-ttl`` is 2^32 - 1 ms."""

_EPILOG = f"""\
settings, each also as NAME_FILE (render needs VHOST alone, drain no password of a user):
  MANAGEMENT_URL           http://user:password@host:port, an administrator's
  VHOST                    the vhost of the topology ({VHOST})
  BROKER_PASSWORD_<USER>   for each of {", ".join(user.name for user in metering_topology().users)}

exit codes:
  0    the broker is as described, or was brought to it
  1    the broker differs and a person must act, or the command failed; the text says what to do
  2    wrong usage or settings, or a file that cannot be read
  130  interrupted (Ctrl-C)
  141  the output was closed before its end

examples:
  nexus-topology apply
  nexus-topology check
  nexus-topology drain {TIERS[-1].name}
  nexus-topology render --broker-version 3.10.8 | jq .policies
"""

_DONE = {
    Standing.MISSING: "created",
    Standing.DIFFERENT: "changed",
    Standing.STALE: "removed",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The address of the broker, and the passwords to give its users, by user name."""

    management_url: str = field(repr=False)
    vhost: str
    passwords: Mapping[str, str] = field(repr=False)


def read_settings(environment: Mapping[str, str], *, with_passwords: bool = True) -> Settings:
    """Read the settings from environment variables, each also as ``<NAME>_FILE``.

    Args:
        environment: The variables.
        with_passwords: Whether the broker users' passwords are needed.

    Raises:
        SettingsError: One or more are missing, or a file cannot be read.
    """
    users = metering_topology().users if with_passwords else ()
    names = ["MANAGEMENT_URL", *(user.password_setting for user in users)]
    values = {name: _read(environment, name) for name in names}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise SettingsError(f"set {', '.join(missing)} (or the same with _FILE)")
    return Settings(
        management_url=values["MANAGEMENT_URL"],
        vhost=_read(environment, "VHOST") or VHOST,
        passwords={user.name: values[user.password_setting] for user in users},
    )


def _read(environment: Mapping[str, str], name: str) -> str:
    return read_value(name, environment) or ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, as ``--help`` lists them."""
    return run_program(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "render":
            return _render(options.tier_scale, options.broker_version)
        if options.command == "drain":
            settings = read_settings(os.environ, with_passwords=False)
            return asyncio.run(_drain(settings, options.tier))
        settings = read_settings(os.environ)
        run = _apply if options.command == "apply" else _check
        return asyncio.run(run(settings, options.tier_scale))
    except (SettingsError, ManagementAddressError) as error:
        return _complain(error, MISUSED)
    except ManagementError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="nexus-topology",
        description="Bring a broker to the metering topology, print it, show drift, drain a tier.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in (
        ("apply", "bring the broker at MANAGEMENT_URL to the topology; safe to repeat"),
        ("check", "print how the broker differs from the topology; exit 1 if it does"),
        ("render", "print the topology as RabbitMQ definitions, without passwords"),
        ("drain", "return what waits in a retry tier to its queues now"),
    ):
        command = commands.add_parser(
            name,
            help=purpose,
            description=purpose,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=_EPILOG,
        )
        if name == "drain":
            command.add_argument("tier", choices=DRAINABLE)
            continue
        command.add_argument(
            "--tier-scale",
            type=_scale,
            default=1.0,
            metavar="FACTOR",
            help="multiply the waits of the retry tiers, for demos and tests (default: 1)",
        )
    commands.choices["render"].add_argument(
        "--broker-version",
        type=_version,
        default=DEFAULT_BROKER_VERSION,
        metavar="VERSION",
        help="the broker's version (default: %(default)s)",
    )
    return parser


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale <= MAX_SCALE:
        raise argparse.ArgumentTypeError(f"must be a number above 0, {MAX_SCALE} at most")
    return scale


def _version(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9A-Za-z.+-]*)?", text):
        raise argparse.ArgumentTypeError("must look like 4.0.5")
    return text


def _render(tier_scale: float, broker_version: str) -> int:
    vhost = _read(os.environ, "VHOST") or VHOST
    topology = metering_topology(vhost, tier_scale, broker_version)
    print(json.dumps(definitions(topology), indent=2))
    return SUCCESS


async def _apply(settings: Settings, tier_scale: float) -> int:
    changes = 0

    def report(difference: Difference) -> None:
        nonlocal changes
        changes += 1
        show_line(f"{_DONE[difference.standing]} {difference.subject}", Tone.GOOD)

    async with connect(settings.management_url) as management:
        left = await apply_topology(
            management,
            settings.passwords,
            vhost=settings.vhost,
            tier_scale=tier_scale,
            on_change=report,
            on_drain=_show_drained,
        )
    _show(left)
    faults = sum(each.standing is Standing.DIFFERENT and not each.acceptable for each in left)
    if faults:
        show_line(f"{faults} differences remain", Tone.BAD)
    elif not changes:
        show_line("nothing to change", Tone.GOOD)
    return FAILED if faults else SUCCESS


async def _check(settings: Settings, tier_scale: float) -> int:
    async with connect(settings.management_url) as management:
        drift = await read_drift(
            management, settings.passwords, vhost=settings.vhost, tier_scale=tier_scale
        )
    _show(drift)
    if all(each.acceptable for each in drift):
        show_line("the broker is as described", Tone.GOOD)
        return SUCCESS
    return FAILED


async def _drain(settings: Settings, tier: str) -> int:
    async with connect(settings.management_url) as management:
        messages = await drain(management, tier, vhost=settings.vhost)
    _show_drained(tier, messages)
    return SUCCESS


def _show_drained(tier: str, messages: int) -> None:
    show_line(f"returned {messages} messages of {tier} to their queues", Tone.GOOD)


def _show(differences: Iterable[Difference]) -> None:
    for difference in differences:
        note = (
            difference.standing is Standing.FOREIGN
            or difference.still_needed_by
            or difference.acceptable
        )
        show_line(str(difference), Tone.NOTE if note else Tone.BAD)


def _complain(error: Exception, code: int) -> int:
    show_error("nexus-topology", str(error))
    return code


if __name__ == "__main__":
    sys.exit(main())
