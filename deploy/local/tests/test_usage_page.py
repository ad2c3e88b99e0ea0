"""The page with the usage component: who may be signed in, and the tokens that its server signs."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import UUID, uuid4

import jwt
import pytest

from local_stack.loopback import fetch
from local_stack.server_process import ServerProcess
from local_stack.usage_page import MODULE, PageUser, UsagePage, add_user

ADA = PageUser(uuid4(), "Ada")
LINUS = PageUser(uuid4(), "Linus", account=uuid4())
MAX_LIFETIME_SECONDS = 900


@pytest.fixture
def page(tmp_path: Path) -> UsagePage:
    """A page of two users, with a component of one line."""
    component = tmp_path / "component"
    (component / "demo").mkdir(parents=True)
    (component / "demo/index.html").write_text("<nexus-usage></nexus-usage>", encoding="utf-8")
    (component / MODULE).write_text("export {};", encoding="utf-8")
    made = UsagePage(tmp_path / "up", component, standard_port=False)
    made.sign_in("http://127.0.0.1:1", (ADA, LINUS))
    return made


@pytest.fixture
def server(page: UsagePage, tmp_path: Path) -> Iterator[ServerProcess]:
    """Its server, running."""
    with page.server(tmp_path / "log") as started:
        started.launch_and_wait()
        yield started


def test_server_has_the_page_and_its_users(page: UsagePage, server: ServerProcess) -> None:
    """The root leads to the page, under a policy that names the usage API alone."""
    with urlopen(server.url) as answer:  # noqa: S310 - only http
        policy = answer.headers["Content-Security-Policy"]
        assert answer.url == page.url
        assert answer.read() == b"<nexus-usage></nexus-usage>"
    host = json.loads(fetch(f"{server.url}/demo/host.json"))

    assert "connect-src 'self' http://127.0.0.1:1;" in policy
    assert [each["name"] for each in host["users"]] == ["Ada", "Linus"]
    assert host["usage_api"] == "http://127.0.0.1:1"
    assert answers_with(f"{server.url}/demo/") == 200
    assert answers_with(f"{server.url}/") == 200


@pytest.mark.parametrize("user", [ADA, LINUS], ids=["on their own", "administrator"])
def test_token_is_for_its_user_and_their_account(
    page: UsagePage, server: ServerProcess, user: PageUser
) -> None:
    """The key set of the page verifies it, and it ends soon."""
    (key,) = jwt.PyJWKSet.from_dict(json.loads(page.key_set.read_text(encoding="utf-8"))).keys

    answer = fetch(f"{server.url}/demo/token?user={user.id}", method="POST")
    claims = jwt.decode(
        json.loads(answer)["token"], key, algorithms=["EdDSA"], audience="nexus-usage"
    )

    assert claims["sub"] == str(user.id)
    assert claims.get("account") == (None if user.account is None else str(user.account))
    assert 0 < claims["exp"] - claims["iat"] <= MAX_LIFETIME_SECONDS


def test_user_who_is_added_gets_a_token(page: UsagePage, server: ServerProcess) -> None:
    """As those do whom `publish` makes; the others stay."""
    grace = PageUser(uuid4(), "Grace")

    assert add_user(page.key_set.parents[1], grace)

    assert answers_with(f"{server.url}/demo/token?user={grace.id}", method="POST") == 200
    assert answers_with(f"{server.url}/demo/token?user={ADA.id}", method="POST") == 200


def test_nobody_else_gets_a_token_and_no_key_is_served(server: ServerProcess) -> None:
    """Only those on the page; and the private key is in no folder that is served."""
    unlisted = UUID(int=1)

    assert answers_with(f"{server.url}/demo/token?user={unlisted}", method="POST") == 404
    assert answers_with(f"{server.url}/private.pem") == 404
    assert answers_with(f"{server.url}/../up/usage-page/private.pem") == 404


def test_private_key_is_its_owners(page: UsagePage) -> None:
    """Other users of the machine can't sign tokens."""
    private = page.key_set.with_name("private.pem")

    assert private.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(page.key_set.read_text())["keys"][0]) == {"kty", "crv", "kid", "x"}


def answers_with(url: str, method: str = "GET") -> int:
    """Return the status of an answer."""
    try:
        fetch(url, method=method)
    except HTTPError as refused:
        return refused.code
    return 200
