"""The page on usage tokens: its keys are made, and both packages' tokens are read by them."""

import asyncio
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest

from nexus_publisher.tokens import sign_usage_token
from support.node import NODE, install_publisher
from support.pages import DOCS, blocks

PAGE = DOCS / "publishing" / "usage-tokens.md"
USER, ACCOUNT = str(uuid4()), str(uuid4())
KID = "2026-11"

PYTHON_HOST = "import sys, tokens_page; print(tokens_page.token_for(*sys.argv[1:]))"
TYPESCRIPT_HOST = """
import { POST } from "./tokens_page.js";
const answer = await POST();
console.log((await answer.json()).token);
"""
SIGN = """
import { signUsageToken } from "@nexus-metering/publisher";
const sign = (given) => signUsageToken(given).catch((error) => `${error.name}: ${error.message}`);
console.log(JSON.stringify(await Promise.all(JSON.parse(process.argv.at(-1)).map(sign))));
"""


@dataclass(frozen=True)
class Keys:
    """A key pair as the page makes it."""

    algorithm: str
    folder: Path

    @property
    def private(self) -> str:
        """Return the private key in PEM."""
        return (self.folder / "usage-token.pem").read_text()

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that the public keys read, as the usage API does."""
        keys = jwt.PyJWKSet.from_json((self.folder / "usage-token-keys.json").read_text())
        key = keys[jwt.get_unverified_header(token)["kid"]]
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[self.algorithm],
            audience="nexus-usage",
            options={"require": ["exp", "iat", "sub", "aud"]},
        )
        return claims


@pytest.fixture(params=["ES256", "EdDSA"])
async def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Keys:
    """Make a key pair by the page's commands."""
    commands = blocks(PAGE, "sh")[["ES256", "EdDSA"].index(request.param)]
    await run(tmp_path, {}, shutil.which("bash") or "bash", "-ec", commands)
    return Keys(request.param, tmp_path)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the TypeScript package is installed."""
    folder = tmp_path_factory.mktemp("application")
    install_publisher(folder)
    return folder


async def run(folder: Path, settings: dict[str, str], *command: str | Path) -> str:
    """Run a command; return its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | {"NODE_NO_WARNINGS": "1"} | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode().strip()


async def test_tokens_of_both_pages_are_read_by_the_public_keys(
    keys: Keys, application: Path
) -> None:
    """They say the same, whichever package signed them; line breaks of a secret may be lost."""
    [python], [typescript] = blocks(PAGE, "python"), blocks(PAGE, "ts")
    (application / "tokens_page.py").write_text(python)
    (application / "package.json").write_text('{"type": "module"}')
    types = (("./session", "./session.js"), (": Promise<Response>", ""))
    for old, new in types:
        typescript = typescript.replace(old, new)
    (application / "tokens_page.js").write_text(typescript)
    user = json.dumps({"id": USER.upper(), "administers": ACCOUNT})
    (application / "session.js").write_text(f"export const currentUser = async () => ({user});")
    (application / "host.mjs").write_text(TYPESCRIPT_HOST)
    secret = keys.private.replace("\n", "\\n")
    settings = {"USAGE_TOKEN_KEY": secret, "USAGE_TOKEN_KID": KID}

    tokens = [
        await run(application, settings, sys.executable, "-c", PYTHON_HOST, USER.upper(), ACCOUNT),
        await run(application, settings, NODE, "host.mjs"),
    ]

    for token in tokens:
        claims = keys.verify(token)
        assert (claims["sub"], claims["account"]) == (USER, ACCOUNT)
        assert claims["exp"] - claims["iat"] == 600
        assert abs(claims["iat"] - time.time()) < 60
        header = jwt.get_unverified_header(token)
        assert header == {"alg": keys.algorithm, "kid": KID, "typ": "JWT"}


async def test_a_token_that_cannot_be_signed_is_an_error_without_its_key(
    keys: Keys, application: Path
) -> None:
    """A wrong lifetime, user, account or key, in both packages."""
    (application / "sign.mjs").write_text(SIGN)
    right = {"privateKey": keys.private, "kid": KID, "userId": USER, "lifetimeSeconds": 900}
    public = await run(keys.folder, {}, "openssl", "pkey", "-in", "usage-token.pem", "-pubout")
    other = await run(application, {}, "openssl", "genpkey", "-algorithm", "x25519")
    wrong: dict[str, dict[str, Any]] = {
        "lifetimeSeconds": {"lifetimeSeconds": 901},
        "kid": {"kid": ""},
        "userId": {"userId": "nobody"},
        "account": {"account": "nobody"},
        "privateKey": {"privateKey": public},
        "privateKey: neither": {"privateKey": other},
    }

    def python(given: dict[str, Any]) -> str:
        lifetime = timedelta(seconds=given["lifetimeSeconds"])
        account = given.get("account")
        return sign_usage_token(
            given["privateKey"], given["kid"], given["userId"], account, lifetime=lifetime
        )

    given = [right, *(right | change for change in wrong.values())]
    signed, *answers = json.loads(await run(application, {}, NODE, "sign.mjs", json.dumps(given)))

    assert "account" not in keys.verify(signed)
    assert "account" not in keys.verify(python(right))
    names = {"lifetimeSeconds": "lifetime", "userId": "user_id", "privateKey": "private_key"}
    for (option, change), answer in zip(wrong.items(), answers, strict=True):
        assert answer.startswith(f"TypeError: {option}")
        first = option.split(":", maxsplit=1)[0]
        with pytest.raises(ValueError, match=f"^{names.get(first, first)}") as raised:
            python(right | change)
        for text in (answer, str(raised.value)):
            assert "nobody" not in text
            assert "PRIVATE" not in text
