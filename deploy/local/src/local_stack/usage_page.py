"""The page of an example platform that embeds ``<nexus-usage>``, for demo users.

Its server is a host as any platform is one: it has the built component, and a private key that
signs a token for whoever is signed in. Here the page says who that is, so it is for demos alone.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from local_stack.catalogue import base_environment
from local_stack.directory_lock import write_secret
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from local_stack.tokens import KID, base64url
from local_stack.urls import Address

NAME: Final = "usage-page"
MODULE: Final = "nexus-usage.js"
PORT: Final = 8090

HOST: Final = "host.json"
PRIVATE_KEY: Final = "private.pem"
"""The files of the page's server, in its folder."""

METERS: Final[Mapping[str, Mapping[str, str]]] = {
    "tool_call_executed": {"name": "Tool runs"},
}
"""What the page calls the default meter; ``deploy/plans.yaml`` names the others."""

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    "limitNames": {"runs": "Runs", "premium": "Premium runs", "llm_cost": "Language models"}
}
"""What the page calls the limits of ``deploy/plans.yaml``."""

_GRACE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class PageUser:
    """Somebody who may be signed in on the page.

    Attributes:
        id: The user's id.
        name: What the page calls them.
        account: The account whose totals they may see, as its administrator.
    """

    id: UUID
    name: str
    account: UUID | None = None


class UsagePage:
    """The page's server, its key, and its users.

    Attributes:
        component: The folder of the built component.
        key_set: The file with the public key, for the usage API.
        origin: Where the page comes from, as a browser says it.
    """

    def __init__(self, directory: Path, component: Path, *, standard_port: bool) -> None:
        """Choose the port and make the key.

        Args:
            directory: The stack's, of which ``usage-page`` is kept here.
            component: The folder of the built component.
            standard_port: Whether to take the usual port where it is free.
        """
        (port,) = free_ports(PORT if standard_port else None)
        self.component = component
        self.origin = Address(LOOPBACK, port).http_url
        self._port = port
        self._directory = directory / NAME
        self._directory.mkdir(parents=True, exist_ok=True)
        self.key_set = self._directory / "keys.json"
        self._make_key()
        self.sign_in("", ())

    @property
    def url(self) -> str:
        """The page's address."""
        return f"{self.origin}/demo/index.html"

    def sign_in(self, usage_api: str, users: Sequence[PageUser]) -> None:
        """Say who may be signed in, and where the page finds the usage API."""
        written = [asdict(each) for each in users]
        _write(
            self._directory,
            {"usage_api": usage_api, "users": written, "meters": METERS, "texts": TEXTS},
        )

    def server(self, log: Path, **options: Any) -> ServerProcess:
        """Prepare the server, which writes to ``log``."""
        where = ("--port", str(self._port), "--component", str(self.component))
        return ServerProcess(
            NAME,
            [sys.executable, "-m", "local_stack.usage_page_server", *where, str(self._directory)],
            url=self.origin,
            ready_path="/readyz",
            log=log,
            env=base_environment(),
            grace=_GRACE_SECONDS,
            **options,
        )

    def _make_key(self) -> None:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret(self._directory / PRIVATE_KEY, private.decode())
        public = base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        written = {"kty": "OKP", "crv": "Ed25519", "kid": KID, "x": public}
        self.key_set.write_text(json.dumps({"keys": [written]}), encoding="utf-8")


def add_user(directory: Path, user: PageUser) -> bool:
    """Add somebody to the page of the stack that runs in ``directory``; False if it has none."""
    folder = directory / NAME
    if not (folder / HOST).is_file():
        return False
    host = json.loads((folder / HOST).read_text(encoding="utf-8"))
    host["users"].append(asdict(user))
    _write(folder, host)
    return True


def _write(folder: Path, host: Mapping[str, object]) -> None:
    new = folder / "host.json.new"
    new.write_text(json.dumps(host, default=str), encoding="utf-8")
    new.replace(folder / HOST)
