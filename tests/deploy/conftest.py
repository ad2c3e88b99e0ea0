"""docker-compose.yml with its defaults, and the secrets that its script makes."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MOUNTED = "/run/secrets/"

Script = Callable[..., subprocess.CompletedProcess[str]]


def _default(setting: re.Match[str]) -> str:
    # Compose inserts the default after it has read the YAML; here it is inserted before.
    return setting.group(1) or '""'


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """Return docker-compose.yml with its defaults, as without any environment variable."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    text = re.sub(r"\$\{\w+:\+[^}]*\}", '""', text)
    read: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", _default, text))
    return read


@pytest.fixture
def secrets_directory(tmp_path: Path) -> Path:
    """Return the folder that ``make_secrets`` writes to."""
    return tmp_path / "secrets"


@pytest.fixture
def make_secrets(secrets_directory: Path) -> Script:
    """Return a function that runs the script with arguments and a standard input."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (ROOT / "deploy/docker/secrets.sh", *arguments),
            env={"PATH": os.environ["PATH"], "SECRETS_DIR": str(secrets_directory)},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return run


@pytest.fixture
def environment_of(
    compose: dict[str, Any], make_secrets: Script, secrets_directory: Path
) -> Callable[[str], Mapping[str, str]]:
    """Return a function giving a container's settings, its secrets where the script made them."""
    make_secrets("emulator").check_returncode()

    def environment(container: str) -> Mapping[str, str]:
        settings: dict[str, str] = compose["services"][container]["environment"]
        return {
            name: value.replace(MOUNTED, f"{secrets_directory}/")
            for name, value in settings.items()
        }

    return environment
