"""Hosts of the TypeScript package: applications that have it installed, and what they run on."""

import re
import shutil
from pathlib import Path
from typing import Final

from support.events_api import EventsApi
from support.node import PUBLISHER, install_publisher, node_environment, npm_ci

FOLDER: Final = Path(__file__).parent
USER: Final = "018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f"

_SNIPPET: Final = re.compile(r"```ts\n(// (\S+)\n.*?)```", re.DOTALL)


def install(name: str, application: Path) -> None:
    """Install what the folder ``name`` beside this module locks, and the package, for a host."""
    shutil.copytree(FOLDER / name, application, dirs_exist_ok=True)
    npm_ci(application)
    install_publisher(application)


def write_snippets(application: Path, *paths: str) -> None:
    """Write these files, which the package's README shows, as they stand there."""
    shown = {path: text for text, path in _SNIPPET.findall((PUBLISHER / "README.md").read_text())}
    for path in paths:
        file = application / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(shown[path])


def install_deno(application: Path) -> tuple[str | Path, ...]:
    """Install Deno and the package; return the command that runs a script with both."""
    install("deno", application)
    [deno] = application.glob("node_modules/@deno/*/deno")
    deno.chmod(0o755)
    options = ("--node-modules-dir=manual", "--no-lock", "--cached-only")
    return (deno, "run", *options, "--allow-net", "--allow-env", "--allow-read")


def settings(events_api: EventsApi, application: Path) -> dict[str, str]:
    """Return the environment of a host of ``events_api``."""
    return {
        **node_environment(),
        "METERING_URL": events_api.url,
        "METERING_KEY": events_api.key,
        "DENO_DIR": str(application / ".deno"),
        "NEXT_TELEMETRY_DISABLED": "1",
    }
