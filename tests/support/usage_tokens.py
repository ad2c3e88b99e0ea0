"""Users' tokens as a host's backend signs them, and the key set that it gives out."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

PrivateKey = Any


@dataclass(frozen=True)
class Signer:
    """A host's private key."""

    kid: str = "one"
    algorithm: str = "EdDSA"
    key: PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)

    @classmethod
    def es256(cls, kid: str = "two") -> "Signer":
        """Return a signer with a key of the curve P-256."""
        return cls(kid, "ES256", generate_private_key(SECP256R1()))

    @property
    def public(self) -> dict[str, Any]:
        """The public key as a JSON Web Key."""
        algorithm = OKPAlgorithm if self.algorithm == "EdDSA" else ECAlgorithm
        written: dict[str, Any] = json.loads(algorithm.to_jwk(self.key.public_key()))
        return written | {"kid": self.kid}

    @property
    def private(self) -> dict[str, Any]:
        """The private key, which belongs in no key set."""
        algorithm = OKPAlgorithm if self.algorithm == "EdDSA" else ECAlgorithm
        written: dict[str, Any] = json.loads(algorithm.to_jwk(self.key))
        return written | {"kid": self.kid}

    def token(
        self, user: UUID, account: UUID | None = None, *, now: float | None = None, **claims: Any
    ) -> str:
        """Sign a token; a claim that is given as ``None`` is left out."""
        issued = time.time() if now is None else now
        said = {
            "sub": str(user),
            "aud": "nexus-usage",
            "iat": int(issued),
            "exp": int(issued) + 600,
        }
        said |= {} if account is None else {"account": str(account)}
        kept = {name: value for name, value in (said | claims).items() if value is not None}
        return jwt.encode(kept, self.key, self.algorithm, headers={"kid": self.kid})


def write_key_set(path: Path, signers: Sequence[Signer]) -> None:
    """Write the public keys of ``signers``, in place of the file that is there."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"keys": [each.public for each in signers]}), encoding="utf-8")
    new.replace(path)
