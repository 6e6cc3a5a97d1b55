"""The door: every route, the roles, CSRF, sessions, limits, and texts that would like to be more than text."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
from tests.labeling.crowd import PASSWORD, PLAIN, Clock, client, fill, people, served, signed_in
from tests.labeling.web.hostile import NASTY

from triphase.labeling.web import (
    api,
    guard,
    health,
    lead,
    lead_campaigns,
    lead_prompts,
    pages,
    sessions,
    tables_download,
)
from triphase.labeling.web.application import create_application
from triphase.labeling.web.context import ServerSettings
from triphase.labeling.web.markdown import markdown
from triphase.labeling.web.sessions import MOST_FAILURES_OF_ADDRESS, MOST_FAILURES_OF_NAME, WINDOW_SECONDS
from triphase.labeling.work import accounts, invitations, item_plan, labeler_status
from triphase.records.types import Message, Prompt, Response
from triphase.records.visible import visible
from triphase.store import Store, schema

PARTS = (pages, api, lead, lead_campaigns, lead_prompts, tables_download, health)


def every_route() -> list[APIRoute]:
    return [route for part in PARTS for route in part.router.routes if isinstance(route, APIRoute)]


def guarded() -> list[tuple[str, str, str]]:
    found = []
    for route in every_route():
        for method in sorted(route.methods - {"HEAD"}):
            path = re.sub(r"\{(\w+)\}", lambda match: "1" if match[1] == "number" else "x", route.path)
            found.append((method, path, getattr(route.endpoint, "access", "nobody")))
    return found


CLOSED = [one for one in guarded() if one[2] != guard.PUBLIC]


@pytest.fixture
def app(store: Store, clock: Clock) -> Iterator[FastAPI]:
    fill(store, 3)
    store.add_prompts([Prompt("nasty", (Message("user", NASTY),))])
    store.add_responses([Response(f"n{k}", "nasty", f"{k} {NASTY}", f"model {NASTY}") for k in range(2)])
    item_plan.make_items(store, PLAIN, seed=0, now=0.0)
    people(store, "ann", "bob")
    people(store, "lea", role="lead")
    with served(store, clock=clock) as made:
        yield made


def test_every_route_says_who_may_call_it(app: FastAPI) -> None:
    levels = {guard.PUBLIC, guard.LABELER, guard.LEAD, guard.ANYONE_SIGNED_IN}
    assert {level for _, _, level in guarded()} == levels
    reachable = {getattr(route, "path", "") for route in app.routes}
    assert all(isinstance(route, guard.GuardedRoute) for route in every_route())
    known = {route.path for route in every_route()} | {"/static"}
    assert {path for path in reachable if path} <= known, "a route that the guard does not see"
    public = {path for _, path, level in guarded() if level == guard.PUBLIC}
    assert public == {"/", "/sign-in", "/invitation/x", "/health", "/ready", "/metrics"}


def test_the_application_serves_these_routes(app: FastAPI) -> None:
    browser = client(app)
    for method, path, _ in guarded():
        assert browser.request(method, path).status_code != 405, (method, path)


def test_without_a_session_nothing_opens(app: FastAPI) -> None:
    assert len(CLOSED) > 20
    for method, path, _ in CLOSED:
        answer = client(app).request(method, path)
        assert answer.status_code in (303, 401), (method, path)
        assert answer.headers.get("location", "/sign-in") == "/sign-in", (method, path)


def test_the_other_role_is_refused(app: FastAPI) -> None:
    ann, lea = signed_in(app, "ann"), signed_in(app, "lea")
    for method, path, level in CLOSED:
        if level == guard.LEAD:
            assert ann.request(method, path).status_code == 403, (method, path)
        elif level == guard.LABELER:  # a lead may rank; what is refused then is only what any labeler would be
            said = lea.request(method, path, headers={"x-csrf-token": lea.headers["x-csrf-token"]})
            assert "needs the role" not in said.text, (method, path)


def test_a_change_without_the_token_is_refused(app: FastAPI) -> None:
    ann, lea = signed_in(app, "ann"), signed_in(app, "lea")
    for method, path, level in CLOSED:
        if method == "GET":
            continue
        browser = lea if level == guard.LEAD else ann
        for token in ("", "wrong", "é"):
            browser.headers.pop("x-csrf-token", None)
            assert browser.request(method, path, data={"csrf": token}).status_code == 403, (method, path)
            if token:
                answer = browser.request(method, path, headers={b"x-csrf-token": token.encode()})
                assert answer.status_code == 403, (method, path)


def test_a_change_from_another_site_is_refused(app: FastAPI) -> None:
    browser = signed_in(app, "ann")
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        assert browser.post("/sign-out", headers=headers).status_code == 403
        answer = client(app).post("/sign-in", data={"name": "ann", "password": PASSWORD}, headers=headers)
        assert answer.status_code == 403 and "set-cookie" not in answer.headers
    assert (
        browser.post("/sign-out", headers={"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}).status_code
        == 303
    )


def test_an_unmarked_route_lets_nobody_in(app: FastAPI) -> None:
    from fastapi import APIRouter

    router = APIRouter(route_class=guard.GuardedRoute)

    @router.get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    app.include_router(router)
    assert client(app).get("/forgotten").status_code == 303
    for name in ("ann", "lea"):
        answer = signed_in(app, name).get("/forgotten")
        assert answer.status_code == 403 and "secret" not in answer.text


def test_the_cookie_is_closed(app: FastAPI) -> None:
    answer = client(app).post("/sign-in", data={"name": "ann", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert "secure" not in cookie, "on loopback there is no TLS"
    from triphase.labeling.web.application import create_application
    from triphase.labeling.web.context import ServerSettings

    secure = create_application(
        app.state.context.store, PLAIN, ServerSettings(secure=True, now=app.state.context.server.now)
    )
    with TestClient(secure, base_url="https://label.example", follow_redirects=False) as browser:
        answer = browser.post("/sign-in", data={"name": "ann", "password": PASSWORD})
        assert "; secure" in answer.headers["set-cookie"].lower()
        assert "strict-transport-security" in answer.headers


def test_a_session_cannot_be_planted_forged_or_kept(app: FastAPI, store: Store) -> None:
    thief = client(app)
    thief.post("/sign-in", data={"name": "bob", "password": PASSWORD})
    planted = thief.cookies[guard.COOKIE]
    victim = client(app)
    victim.cookies.set(guard.COOKIE, planted)
    victim.post("/sign-in", data={"name": "ann", "password": PASSWORD})
    assert planted not in victim.cookies.jar._cookies.get("", {}).values()
    thief.cookies.clear()
    thief.cookies.set(guard.COOKIE, planted)
    assert thief.get("/rank").status_code == 303, "the planted session has ended"
    forged = client(app)
    forged.cookies.set(guard.COOKIE, planted[:-3] + "abc")
    assert forged.get("/rank").status_code == 303
    signed = signed_in(app, "ann")
    kept = signed.cookies[guard.COOKIE]
    signed.post("/sign-out")
    late = client(app)
    late.cookies.set(guard.COOKIE, kept)
    assert late.get("/rank").status_code == 303, "signing out ends the session on the server"


def test_sessions_expire(app: FastAPI, clock: Clock) -> None:
    browser = signed_in(app, "ann")
    clock.time += 13 * 3600
    assert browser.get("/rank").status_code == 200
    clock.time += 2 * 3600
    assert browser.get("/rank").status_code == 303


def test_a_new_password_and_a_withdrawal_end_sessions(app: FastAPI, store: Store) -> None:
    ann, bob = signed_in(app, "ann"), signed_in(app, "bob")
    with store.transaction() as connection:
        accounts.set_password(
            connection, "ann", accounts.hashed("another password"), now=app.state.context.now(), by="t"
        )
        labeler_status.set_status(connection, "bob", "withdrawn", now=1.0, by="t")
    assert ann.get("/rank").status_code == 303
    assert bob.get("/rank").status_code == 303
    assert client(app).post("/sign-in", data={"name": "bob", "password": PASSWORD}).status_code == 403


def test_signing_in_is_limited(app: FastAPI, clock: Clock) -> None:
    browser = client(app)
    for _ in range(MOST_FAILURES_OF_NAME):
        assert browser.post("/sign-in", data={"name": "ann", "password": "wrong password"}).status_code == 403
    answer = browser.post("/sign-in", data={"name": "ann", "password": PASSWORD})
    assert answer.status_code == 429 and "wait a quarter of an hour" in answer.text
    assert browser.post("/sign-in", data={"name": "bob", "password": PASSWORD}).status_code == 303
    clock.time += WINDOW_SECONDS + 1
    assert browser.post("/sign-in", data={"name": "ann", "password": PASSWORD}).status_code == 303


def test_the_limit_holds_for_attempts_at_the_same_moment(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def slowly(_hash: str | None, password: str) -> bool:
        compared.append(password)
        time.sleep(0.05)
        return False

    monkeypatch.setattr("triphase.labeling.web.sessions.verify", slowly)

    # One event loop, as a server has it: the semaphore of the passwords belongs to it.
    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
            forms = [{"name": "ann", "password": f"guess number {number}"} for number in range(24)]
            answers = await asyncio.gather(*(browser.post("/sign-in", data=form) for form in forms))
            return [answer.status_code for answer in answers]

    statuses = Counter(asyncio.run(all_at_once()))
    assert statuses == {403: MOST_FAILURES_OF_NAME, 429: 24 - MOST_FAILURES_OF_NAME}
    assert len(compared) == MOST_FAILURES_OF_NAME


def test_many_people_of_one_address_come_at_the_same_moment(app: FastAPI, store: Store) -> None:
    names = [f"person{number}" for number in range(MOST_FAILURES_OF_ADDRESS + 24)]
    people(store, *names)

    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
            forms = [{"name": name, "password": PASSWORD} for name in names]
            answers = await asyncio.gather(*(browser.post("/sign-in", data=form) for form in forms))
            return [answer.status_code for answer in answers]

    assert Counter(asyncio.run(all_at_once())) == {303: len(names)}


def test_unknown_names_answer_as_known_ones(app: FastAPI) -> None:
    known = client(app).post("/sign-in", data={"name": "ann", "password": "wrong password"})
    unknown = client(app).post("/sign-in", data={"name": "nobody", "password": "wrong password"})
    assert known.status_code == unknown.status_code == 403
    assert known.text.replace("ann", "") == unknown.text.replace("nobody", "")


def test_the_password_of_nobody_takes_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert accounts._hasher.check_needs_rehash(accounts._NOBODY) is False, "the same cost as a real one"
    assert accounts.verify(None, "anything at all") is False


def test_invitations_work_once(app: FastAPI, store: Store, clock: Clock) -> None:
    lea = signed_in(app, "lea")
    page = lea.post("/lead/invitations", data={"role": "labeler"})
    path = re.search(r"/invitation/[\w-]+", page.text).group(0)
    assert client(app).get(path).status_code == 200
    form = {"name": "cy", "password": PASSWORD, "again": PASSWORD}
    for wrong in ({**form, "again": "different one"}, {**form, "name": "Not A Name!"}, {**form, "name": "ann"},
                  {**form, "password": "short", "again": "short"}):  # fmt: skip
        assert client(app).post(path, data=wrong).status_code == 422
    browser = client(app)
    assert browser.post(path, data=form).headers["location"] == "/rank"
    assert browser.get("/rank").status_code == 200
    assert client(app).post(path, data={**form, "name": "dee"}).status_code == 410
    with store.transaction() as connection:
        old = invitations.invite(connection, "labeler", now=clock.time - 8 * 86400, by="lea")
    assert client(app).get(f"/invitation/{old}").status_code == 410
    assert client(app).get("/invitation/unknown").status_code == 410
    with store.reading() as connection:
        assert path.rpartition("/")[2] not in str(connection.execute(schema.invitations.select()).all())


def test_a_link_for_a_new_password(app: FastAPI) -> None:
    page = signed_in(app, "lea").post("/lead/invitations", data={"role": "labeler", "name": "ann"})
    path = re.search(r"/invitation/[\w-]+", page.text).group(0)
    form = {"password": "a brand new password", "again": "a brand new password"}
    assert client(app).post(path, data=form).headers["location"] == "/rank"
    assert client(app).post("/sign-in", data={"name": "ann", "password": PASSWORD}).status_code == 403
    assert client(app).post("/sign-in", data={"name": "ann", "password": form["password"]}).status_code == 303


def test_headers_are_strict_everywhere(app: FastAPI) -> None:
    browser = signed_in(app, "ann")
    for path in ("/rank", "/api/next", "/static/rank.js", "/nowhere", "/sign-in"):
        headers = browser.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin", "no-referrer makes browsers send forms with Origin: null"
    assert browser.get("/rank").headers["cache-control"] == "no-store"


def test_pages_have_no_inline_script_or_style(app: FastAPI) -> None:
    lea, ann = signed_in(app, "lea"), signed_in(app, "ann")
    addresses = [path for method, path, level in guarded() if method == "GET" and level == guard.LEAD]
    texts = [lea.get(path).text for path in addresses if "export" not in path] + [ann.get("/rank").text]
    for text in [*texts, client(app).get("/sign-in").text]:
        text = re.sub(r'"[^"]*"', '""', text)
        assert not re.search(r"<script(?![^>]*\ssrc=)", text)
        assert not re.search(r"<[^>]+\s(on\w+|style)=", text)


def test_nasty_texts_are_inert(app: FastAPI) -> None:
    lea, ann = signed_in(app, "lea"), signed_in(app, "ann")
    seen = False
    for _ in range(4):
        item = ann.get("/api/next").json()["item"]
        texts = [one["text"] for one in item["responses"]]
        if any("owned" in text for text in texts):
            seen = True
            assert all("\u202e" not in text and "\x1b" not in text for text in texts)
            assert "⟦U+202E⟧evil" in texts[0]
            body = {"assignment": item["assignment"], "position": 0, "reason": "unsafe", "note": NASTY}
            assert ann.post("/api/flags", json=body).status_code == 200
        places = list(range(1, len(texts) + 1))
        given = {"assignment": item["assignment"], "places": places, "note": NASTY}
        assert ann.post("/api/answers", json=given).status_code == 200
    assert seen
    lea.post("/lead/guidelines", data={"text": f"# Rules\n{NASTY} [x](javascript:alert(1)) ![i](http://evil/x.png)"})
    for path in ("/lead/samples", "/lead/prompt?id=nasty", "/lead/flags", "/lead/guidelines", "/lead/audit", "/lead"):
        text = re.sub(r'<option value="[^"]*"', "<option", lea.get(path).text)
        assert "<script>document" not in text and "<svg onload" not in text and "<img" not in text
        assert "\u202e" not in text and "\x1b" not in text
    assert "&lt;script&gt;document" in lea.get("/lead/prompt?id=nasty").text
    assert 'href="javascript' not in lea.get("/lead/guidelines").text


def test_the_page_is_blind(app: FastAPI) -> None:
    item = signed_in(app, "ann").get("/api/next").text
    assert "model-" not in item and "p0000" not in re.sub(r"answer \d to p0000\d", "", item)
    assert '"order' not in item and "gold" not in item


def test_long_bodies_and_fields_are_refused(app: FastAPI) -> None:
    browser = signed_in(app, "ann")
    item = browser.get("/api/next").json()["item"]
    count = len(item["responses"])
    body = {"assignment": item["assignment"], "places": [1] * count}
    assert browser.post("/api/answers", json={**body, "note": "x" * 2001}).status_code == 422
    assert browser.post("/api/answers", json={**body, "note": "x" * 70_000}).status_code == 413
    streamed = (b" " * 4096 for _ in range(40))
    assert (
        browser.post("/api/answers", content=streamed, headers={"content-type": "application/json"}).status_code == 413
    )
    assert browser.post("/sign-in", data={"name": "a" * 100, "password": "x"}).status_code == 422
    assert browser.post("/api/answers", content=b"{", headers={"content-type": "application/json"}).status_code == 422
    lea = signed_in(app, "lea")
    token = lea.headers.pop("x-csrf-token")
    answer = lea.post("/lead/guidelines", files={"file": ("x.txt", b"x")}, data={"text": "x", "csrf": token})
    assert answer.status_code == 400, "forms take no files"


@pytest.mark.parametrize(
    "path", ["/static/../application.py", "/static/%2e%2e/application.py", "/static/..%2fguard.py"]
)
def test_files_outside_the_static_folder_stay_closed(app: FastAPI, path: str) -> None:
    assert client(app).get(path).status_code == 404


def test_foreign_hosts_are_refused(store: Store) -> None:
    from triphase.labeling.web.application import create_application
    from triphase.labeling.web.context import ServerSettings

    app = create_application(store, PLAIN, ServerSettings(allowed_hosts=("127.0.0.1",)))
    with TestClient(app, base_url="http://rebound.example") as browser:
        assert browser.get("/sign-in").status_code == 400


def test_visible_writes_out_what_hides() -> None:
    assert visible("plain text\n\ttabs") == "plain text\n\ttabs"
    assert visible("a\u202eb\u2066c\u200fd\ufeffe\x00f\x9bg\u2028h") == (
        "a⟦U+202E⟧b⟦U+2066⟧c⟦U+200F⟧d⟦U+FEFF⟧e⟦U+0000⟧f⟦U+009B⟧g⟦U+2028⟧h"
    )
    family = "👩\u200d👧 نمی\u200cخواهم"
    assert visible(family) == family
    assert visible("line\r\nline\rover") == "line\nline⟦U+000D⟧over"


def test_markdown_is_clean() -> None:
    html = markdown(
        "# T\n\n<b onclick=x>hi</b> [a](javascript:x) [b](https://ok.example)\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    assert "<h1>T</h1>" in html and "&lt;b onclick" in html and 'href="https://ok.example"' in html
    assert "javascript:x" not in re.sub(r">[^<]*<", "><", html) and "<table>" in html


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://["},
        {"origin": "http://[::1"},
        {"origin": "//]["},
        {"host": "["},
        {"host": "127.0.0.1:notaport"},
        {"content-length": "9" * 5000},
        {"content-length": "-1"},
        {"cookie": "triphase_session=\xff.\xfe"},
    ],
)
def test_headers_that_cannot_be_read_are_refused_by_a_page_with_all_headers(
    store: Store, headers: dict[str, str]
) -> None:
    app = create_application(store, PLAIN, ServerSettings(allowed_hosts=("127.0.0.1",)))
    browser = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False)
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    for method, path in (("POST", "/sign-in"), ("POST", "/api/answers"), ("GET", "/rank")):
        answer = browser.request(method, path, headers=raw)
        assert answer.status_code < 500 and "content-security-policy" in answer.headers, (headers, answer.text)
    app.state.context.close()


def test_a_failure_of_the_program_has_all_headers_and_is_logged(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect at /some/place")

    monkeypatch.setattr(pages.sessions, "attempt", broken)
    answer = client(app).post("/sign-in", data={"name": "ann", "password": PASSWORD})
    assert answer.status_code == 500 and "content-security-policy" in answer.headers
    assert "defect" not in answer.text and "a defect at /some/place" in caplog.text


def test_guidelines_are_as_long_as_their_form_promises(app: FastAPI) -> None:
    lea = signed_in(app, "lea")
    for text in ("指" * 60_000, "😀" * 60_000):
        assert lea.post("/lead/guidelines", data={"text": text}).status_code == 303
        assert text[:100] in lea.get("/lead/guidelines").text
    assert lea.post("/lead/guidelines", data={"text": "a" * 60_001}).status_code == 422
    answer = lea.post("/lead/guidelines", data={"text": "😀" * 70_000})
    assert answer.status_code == 413 and answer.headers["content-type"].startswith("text/html")
    assert lea.post("/lead/flags/1", data={"resolution": "x" * 100_000}).status_code == 413


def test_links_begin_with_the_address_that_the_server_was_given(store: Store, clock: Clock) -> None:
    people(store, "lea", role="lead")
    server = ServerSettings(now=clock, address="https://label.example/", allowed_hosts=("label.example", "127.0.0.1"))
    app = create_application(store, PLAIN, server)
    assert client(app).get("/sign-in", headers={"host": "evil.example"}).status_code == 400
    page = signed_in(app, "lea").post("/lead/invitations", data={"role": "labeler"})
    assert 'value="https://label.example/invitation/' in page.text
    app.state.context.close()


@pytest.mark.parametrize("what", ["new password", "withdrawn"])
def test_an_account_that_changes_while_its_password_is_compared_gets_no_session(
    app: FastAPI, store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    real = sessions.fits
    new = accounts.hashed("another password")

    def slowly(known: str | None, password: str) -> bool:
        with store.transaction() as connection:
            if what == "withdrawn":
                labeler_status.set_status(connection, "ann", "withdrawn", now=1.0, by="lea")
            else:
                accounts.set_password(connection, "ann", new, now=1.0, by="lea")
        return real(known, password)

    monkeypatch.setattr(sessions, "fits", slowly)
    answer = client(app).post("/sign-in", data={"name": "ann", "password": PASSWORD})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


def test_a_lead_who_is_paused_has_no_rights_of_a_lead(app: FastAPI, store: Store) -> None:
    people(store, "lou", role="lead")
    with store.transaction() as connection:
        labeler_status.set_status(connection, "lou", "paused", now=1.0, by="lea")
    browser = client(app)
    assert browser.post("/sign-in", data={"name": "lou", "password": PASSWORD}).status_code == 303
    answer = browser.get("/lead/labelers")
    assert answer.status_code == 403 and "account is paused" in answer.text


@pytest.mark.parametrize("name", ["a\0b", "\0", "\0" * 80])
def test_a_name_that_no_store_keeps_is_refused(app: FastAPI, name: str) -> None:
    assert client(app).post("/sign-in", data={"name": name, "password": PASSWORD}).status_code in (403, 422)
    lea = signed_in(app, "lea")
    assert lea.get("/lead/audit", params={"who": name}).status_code in (200, 422)
    assert lea.post("/lead/labelers/a%00b/status", data={"status": "paused"}).status_code == 422
