"""The headers for browsers and caches, whatever the answer is."""

from pathlib import Path
from uuid import uuid4

from nexus_database import Database
from support.usage_ledger import UsageLedger
from usage_ingest.usage_api.headers import component_files

from .conftest import KEY, ORIGIN, Api, running_api


async def test_unchanged_answer_is_not_sent_again(api: Api, ledger: UsageLedger) -> None:
    """A tag stands for everything but `as_of`; any new usage changes it."""
    user = uuid4()
    path = f"/v1/entitlements/{user}"
    first = await api.get(path)
    tag = first.headers["ETag"]

    same = await api.get(path, If_None_Match=tag)
    await ledger.report(user, 1)
    changed = await api.get(path, If_None_Match=tag)

    assert first.headers["Cache-Control"] == same.headers["Cache-Control"] == "private, max-age=30"
    assert (same.status, same.body, same.headers["ETag"]) == (304, "", tag)
    assert changed.status == 200
    assert changed.headers["ETag"] != tag
    assert (api.counted("entitlements", "ok"), api.counted("entitlements", "not_modified")) == (
        2,
        1,
    )


async def test_a_kept_answer_is_used_for_nobody_else(api: Api) -> None:
    """`/v1/usage` is one address for all users: a browser keeps the answers of each apart."""
    token = api.signer.token(uuid4())

    full = await api.get("/v1/usage", token, Origin=ORIGIN)
    same = await api.get("/v1/usage", token, If_None_Match=full.headers["ETag"])

    assert (full.status, same.status) == (200, 304)
    for each in (full, same):  # the second one has no origin: it was kept for any
        assert {"Authorization", "Origin"} <= set(each.headers["Vary"].split(", "))


async def test_pages_of_the_configured_origins_may_ask(api: Api) -> None:
    """With their own header, also when they are refused; others may not, and no cookies count."""
    preflight = {
        "method": "OPTIONS",
        "Access_Control_Request_Method": "GET",
        "Access_Control_Request_Headers": "authorization, if-none-match",
    }
    path = "/v1/usage"

    asked = await api.get(path, None, **preflight, Origin=ORIGIN)
    refused = await api.get(path, None, Origin=ORIGIN)
    foreign = [
        await api.get(path, None, **preflight, Origin=origin)
        for origin in ("https://evil.example.com", f"{ORIGIN}.evil.com", f"{ORIGIN}:8443", "null")
    ]
    foreign_get = await api.get(path, api.signer.token(uuid4()), Origin="https://evil.example.com")

    assert asked.status == 200
    assert asked.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "authorization" in asked.headers["Access-Control-Allow-Headers"].lower()
    assert refused.status == 401
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Origin" in refused.headers["Vary"]
    for each in (*foreign, foreign_get):
        assert "Access-Control-Allow-Origin" not in each.headers
    for each in (asked, refused, *foreign):
        assert "Access-Control-Allow-Credentials" not in each.headers
        assert "Set-Cookie" not in each.headers


async def test_every_answer_holds_browsers_to_a_policy(api: Api) -> None:
    """No inline script, no framing, no other type than is said."""
    for path in ("/v1/usage", "/nowhere", "/healthz"):
        headers = (await api.get(path, None)).headers
        policy = headers["Content-Security-Policy"]

        assert "default-src 'none'; script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_other_paths_and_methods_are_problems(api: Api) -> None:
    """As every refusal; a method that is not allowed says which is."""
    path = await api.get("/v1/other")
    method = await api.get("/v1/usage", method="POST")

    assert (path.status, path.body["code"]) == (404, "not_found")
    assert (method.status, method.body["code"]) == (405, "method_not_allowed")
    assert "GET" in method.headers["Allow"]


async def test_each_user_and_each_key_has_a_rate(reader: Database, key_set: Path) -> None:
    """Who asks too often gets the time to ask again; others are not affected."""
    async with running_api(reader, key_set, rate=2) as api:
        busy = api.signer.token(uuid4())
        answers = [await api.get("/v1/usage", busy) for _ in range(8)]
        other = await api.get("/v1/usage", api.signer.token(uuid4()))
        service = await api.get(f"/v1/entitlements/{uuid4()}", KEY)

    refused = [each for each in answers if each.status == 429]
    assert refused
    assert {(each.body["code"], each.headers["Retry-After"]) for each in refused} == {
        ("rate_limited", "1")
    }
    assert (other.status, service.status) == (200, 200)


async def test_files_of_the_component_are_served(
    reader: Database, key_set: Path, tmp_path: Path
) -> None:
    """Scripts have their type; they are asked about each time unless a hash names them."""
    folder = tmp_path / "component"
    folder.mkdir()
    for name in ("nexus-usage.js", "chunk-3f2a9c1b.js", "index.html"):
        (folder / name).write_text("x", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    async with running_api(reader, key_set, files=component_files(folder)) as api:
        script = await api.get("/nexus-usage.js", None, Origin=ORIGIN)
        again = await api.get("/nexus-usage.js", None, If_None_Match=script.headers["ETag"])
        hashed = await api.get("/chunk-3f2a9c1b.js", None)
        page = await api.get("/", None)
        outside = await api.get("/..%2fsecret.txt", None)

    assert script.headers["Content-Type"].startswith("text/javascript")
    assert script.headers["Cache-Control"] == "no-cache"
    assert script.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert again.status == 304
    assert "immutable" in hashed.headers["Cache-Control"]
    assert page.headers["Content-Type"].startswith("text/html")
    assert (outside.status, outside.body["code"]) == (404, "not_found")
