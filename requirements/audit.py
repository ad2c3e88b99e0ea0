"""Asks an advisory database about every dependency that the images hold, pin by pin.

It is asked by `uv audit`, which needs one request for all of them and tells by its exit code
whether something was found or nobody answered.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PINNED: Final = Path(__file__).with_name("runtime.txt")
PIN: Final = re.compile(r"^[A-Za-z0-9][\w.-]*==[^\s;\\]+", re.MULTILINE)
UNANSWERED: Final = 2

# `make check` waits for it; whoever has more patience sets them.
_IMPATIENT: Final = {"UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}


def script(pins: Sequence[str]) -> str:
    """Return a script that depends on nothing but ``pins``: one of the things uv audits."""
    listed = "".join(f'#   "{pin}",\n' for pin in pins)
    return f"# /// script\n# dependencies = [\n{listed}# ]\n# ///\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit; return 1 on a finding, and 2 if nobody answers, unless that was allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--if-answered", action="store_true", help="exit with 0 if no database answers"
    )
    parser.add_argument("--service-url", help="the advisory database, if not uv's own choice")
    options = parser.parse_args(arguments)
    pins = PIN.findall(PINNED.read_text(encoding="utf-8"))
    done = _audit(pins, ["--service-url", options.service_url] if options.service_url else [])
    if done.returncode == UNANSWERED:
        [cause, *_] = re.findall(r"^error: (.*)$", done.stderr, re.MULTILINE) or ["no reason given"]
        print(f"audit: no advisory database answers; not audited ({cause})")
        return 0 if options.if_answered else UNANSWERED
    found = done.stdout.strip() if done.returncode else "no known advisory"
    print(f"audit: {len(pins)} pinned dependencies, {found}")
    return done.returncode


def _audit(pins: Sequence[str], extra: Sequence[str]) -> subprocess.CompletedProcess[str]:
    with TemporaryDirectory() as directory:
        described = Path(directory) / "delivered.py"
        described.write_text(script(pins), encoding="utf-8")
        return subprocess.run(  # noqa: S603 - a list, without a shell, of this environment's own uv
            [
                Path(sys.executable).with_name("uv"),
                "audit",
                "--preview-features=audit-command",
                f"--script={described}",
                *extra,
            ],
            env=_IMPATIENT | dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )


if __name__ == "__main__":
    sys.exit(main())
