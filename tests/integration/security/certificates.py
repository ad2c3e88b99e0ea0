"""A certificate authority of a test's own, and the certificates it issues."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# The extensions that Python's strict verification asks for (the default from Python 3.13 on).
_CONFIGURATION = """
[req]
distinguished_name = name
prompt = no
[name]
CN = A test's own
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
subjectAltName = DNS:localhost
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Authority:
    """An authority in a folder of its own, with a server's certificate for ``localhost`` alone."""

    folder: Path

    @classmethod
    def found(cls, folder: Path) -> Self:
        """Make the authority and the server's certificate; needs ``openssl`` 3."""
        folder.mkdir()
        authority = cls(folder)
        (folder / "openssl.cnf").write_text(_CONFIGURATION)
        authority._issue("authority", authority.certificate, folder / "authority.key")
        signer = ("-CA", str(authority.certificate), "-CAkey", str(folder / "authority.key"))
        authority._issue("server", authority.server_certificate, authority.server_key, *signer)
        return authority

    @property
    def certificate(self) -> Path:
        """The certificate that a client needs to trust the server."""
        return self.folder / "authority.pem"

    @property
    def server_certificate(self) -> Path:
        """The server's certificate."""
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's private key."""
        return self.folder / "server.key"

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server in Python."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_certificate, self.server_key)
        return context

    def _issue(self, extensions: str, certificate: Path, key: Path, *signer: str) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-days", "2", "-nodes"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-config", str(self.folder / "openssl.cnf"), "-extensions", extensions),
                *("-keyout", str(key), "-out", str(certificate), *signer),
            ],
            check=True,
            capture_output=True,
        )
