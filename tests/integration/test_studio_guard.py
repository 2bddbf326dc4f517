"""Attacks on the studio: other hosts, other sites, other places, too much of everything."""

import http.client
import re
import socket
import threading
import urllib.error
import urllib.request
from contextlib import closing, contextmanager

import pytest
from service_helpers import new_user
from studio_helpers import HOME, PORT, ROOT, browser, everything, words

from domains.users import User
from orm_core import ConfigurationError, QueryError, db
from orm_core.studio.guard import HEADERS, Guard
from orm_core.studio.place import check_writable, is_local
from orm_core.studio.server import Options, open_studio

OURS = {"Origin": HOME, "Sec-Fetch-Site": "same-origin"}


def delete(browser, user, headers, token=None):
    """The most harmful request that there is."""
    token = browser.studio.guard.form_token if token is None else token
    return browser.client.post(
        f"/users/{user.id}/-/delete", base_url=HOME, data={"_csrf": token}, headers=headers
    )


def is_live(user):
    return User.select().where(User.id == user.id).exists()


# -- hosts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_the_studio_answers_to_the_names_of_this_machine(look, host):
    page = look.client.get("/", headers={"Host": f"{host}:{PORT}"})
    assert page.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        f"rebound.example:{PORT}",
        f"localhost.rebound.example:{PORT}",
        f"127.0.0.1.nip.io:{PORT}",
        "localhost",
        "localhost:80",
        f"localhost:{PORT}@rebound.example",
        f"rebound.example#localhost:{PORT}",
        f"0.0.0.0:{PORT}",
        f"127.0.0.2:{PORT}",
        "",
        "[::1",
        f"localhost:{PORT}:{PORT}",
        "localhost:9999999",
    ],
)
@pytest.mark.parametrize("path", ["/", "/users", "/-/static/studio.css", "/users/-/export.csv"])
def test_a_name_that_was_made_to_lead_here_gets_nothing(look, host, path):
    page = look.client.get(path, headers={"Host": host})
    assert page.status_code in (400, 403)
    assert "csrf" not in page.get_data(as_text=True)


def test_forwarded_headers_do_not_count(look):
    headers = {"Host": "rebound.example", "X-Forwarded-Host": f"localhost:{PORT}"}
    assert look.client.get("/", headers=headers).status_code == 403


# -- other sites ------------------------------------------------------------------------------------


def test_our_own_form_is_let_through(edit):
    user = new_user()
    assert delete(edit, user, OURS).status_code == 303
    assert not is_live(user)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-site"},
        {"Origin": f"https://localhost:{PORT}"},
        {"Origin": f"http://localhost:{PORT}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": HOME, "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_form_of_another_site_changes_nothing_even_with_our_token(edit, headers):
    user = new_user()
    assert delete(edit, user, headers).status_code == 403
    assert is_live(user)


@pytest.mark.parametrize("token", ["", "wrong", "é"])
def test_a_form_without_our_token_changes_nothing(edit, token):
    user = new_user()
    assert delete(edit, user, OURS, token=token).status_code == 403
    assert is_live(user)


def test_a_token_is_of_one_run_only(studio_db):
    one, other = browser(studio_db), browser(studio_db)
    assert one.studio.guard.form_token != other.studio.guard.form_token
    for found in (one, other):
        found.studio.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        (
            {
                "Sec-Fetch-Site": "cross-site",
                "Sec-Fetch-Mode": "navigate",
                "Sec-Fetch-Dest": "iframe",
            },
            403,
        ),
    ],
)
def test_another_site_may_link_here_and_nothing_more(look, headers, status):
    assert look.get("/users", headers=headers).status_code == status


@pytest.mark.parametrize(
    "path", ["/", "/users", "/nowhere", "/users/-/export.csv", "/-/static/studio.js"]
)
def test_every_answer_keeps_to_itself(look, path):
    page = look.get(path, headers={"Origin": "https://evil.example"})
    for name, text in HEADERS.items():
        assert page.headers[name] == text
    assert not [name for name, _ in page.headers if name.startswith("Access-Control")]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    page.close()


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods_are_refused(look, method):
    page = look.client.open("/users", base_url=HOME, method=method)
    assert page.status_code in (403, 405, 411)


def test_pages_load_nothing_from_elsewhere_and_hold_no_inline_code(edit):
    user = new_user()
    for path in ("/", "/users", f"/users/{user.id}", f"/users/{user.id}/-/edit", "/-/diagram",
                 "/-/dashboard", "/-/migrations", "/-/seed", "/users/-/structure"):  # fmt: skip
        text = edit.get(path).get_data(as_text=True)
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', text), path
        assert not re.search(r"<script(?! src=)|<style|\bstyle=|\bon\w+=", text), path


# -- what is read-only ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/-/new"),
        ("POST", "/users/-/new"),
        ("GET", "/users/{id}/-/edit"),
        ("POST", "/users/{id}/-/edit"),
        ("GET", "/users/{id}/-/cell/email"),
        ("POST", "/users/{id}/-/cell/email"),
        ("POST", "/users/{id}/-/delete"),
        ("POST", "/users/{id}/-/restore"),
        ("POST", "/users/-/bulk"),
        ("POST", "/-/undo"),
        ("GET", "/-/seed"),
        ("POST", "/-/seed"),
        ("GET", "/-/sql"),
        ("POST", "/-/sql"),
    ],
)
def test_nothing_is_edited_and_no_sql_taken_without_being_asked_for(look, method, path):
    user = new_user()
    path = path.format(id=user.id)
    page = look.get(path) if method == "GET" else look.post(path, {"sql": "SELECT 1"})
    assert page.status_code == 403
    assert is_live(user)


def test_without_write_the_server_refuses_even_a_service(studio_db):
    from orm_core.studio.reader import read_only

    read_only(studio_db)
    with pytest.raises(QueryError, match="read-only"):
        new_user()


@pytest.mark.parametrize(
    ("params", "local"),
    [
        ({"host": "localhost"}, True),
        ({"host": "127.0.0.1"}, True),
        ({"host": "::1"}, True),
        ({"host": "/var/run/postgresql"}, True),
        ({}, True),
        ({"host": "db.example.com"}, False),
        ({"host": "10.0.0.7"}, False),
        ({"host": "localhost", "hostaddr": "10.0.0.7"}, False),
        ({"host": "localhost,db.example.com"}, False),
        ({"host": "localhost.example.com"}, False),
    ],
)
def test_a_remote_database_is_written_to_only_on_a_second_word(params, local):
    from orm_core import Database

    database = Database("shop", **params)
    assert is_local(database) is local
    check_writable(database, yes_remote=True)
    if not local:
        with pytest.raises(ConfigurationError, match="--yes-remote"):
            check_writable(database, yes_remote=False)


# -- too much, and elsewhere ------------------------------------------------------------------------


def test_a_body_of_50_megabytes_is_refused_unread(edit):
    page = edit.post("/users/-/new", {"value.email": "x" * (50 << 20)})
    assert page.status_code == 413


def test_an_address_that_is_too_long_is_refused(look):
    assert look.get(f"/users?email={'x' * 10_000}").status_code == 414


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/-/static/../../app.py",
        "/-/static/..%2f..%2fapp.py",
        "/-/static/%2e%2e/app.py",
        "/-/static//etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/users/..%2f..%2fetc%2fpasswd",
        "/users/-/export...%2f",
        "/users%00",
        "/'; DROP TABLE users; --",
        '/users"; DROP TABLE users; --',
        "/pg_catalog.pg_authid",
        "/information_schema.tables",
        "/migratehistory",
    ],
)
def test_a_path_leads_nowhere_but_to_our_pages(look, path):
    page = look.get(path)
    assert page.status_code in (400, 404), page.status_code
    text = page.get_data(as_text=True)
    assert "root:" not in text
    assert "create_app" not in text
    assert User.table_exists()


def test_the_choice_of_colours_leads_back_to_our_own_pages_only(look):
    for path in ("//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nX: y"):
        page = look.post("/-/theme", {"theme": "dark", "_path": path})
        assert page.headers["Location"] == "/"
    page = look.post("/-/theme", {"theme": "dark", "_path": "/users?_q=x"})
    assert page.headers["Location"] == "/users?_q=x"
    assert 'data-theme="dark"' in look.get("/").get_data(as_text=True)
    look.post("/-/theme", {"theme": '"><b>', "_path": "/"})
    assert 'data-theme="auto"' in look.get("/").get_data(as_text=True)


def test_a_defect_is_told_without_values(look, monkeypatch, caplog):
    from orm_core.studio import explorer

    def fails(*_):
        raise RuntimeError("the value of a row")

    monkeypatch.setattr(explorer, "read_page", fails)
    page = look.get("/users")
    assert page.status_code == 500
    assert "RuntimeError" in words(page)
    assert "the value of a row" not in words(page) + caplog.text


# -- on a network -----------------------------------------------------------------------------------


@pytest.fixture
def abroad(studio_db):
    """A studio that listens on an address which others can reach."""
    found = browser(studio_db, guard=Guard("192.0.2.7", PORT))
    yield found
    found.studio.close()


def from_abroad(found, path, **options):
    return found.client.get(path, base_url=f"http://192.0.2.7:{PORT}", **options)


def test_on_a_network_the_link_lets_one_browser_in_once(abroad):
    assert from_abroad(abroad, "/users").status_code == 401
    address = abroad.studio.guard.link()
    token = address.partition("?")[2]
    entered = from_abroad(abroad, f"/?{token}")
    assert entered.status_code == 303
    assert entered.headers["Location"] == "/"
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite" in cookie
    assert from_abroad(abroad, "/users").status_code == 200
    abroad.client.delete_cookie("orm_core_studio_pass", domain="192.0.2.7")
    assert from_abroad(abroad, f"/?{token}").status_code == 401
    assert from_abroad(abroad, "/?_token=").status_code == 401


def test_on_a_network_other_names_get_nothing(abroad):
    page = abroad.client.get("/", headers={"Host": f"rebound.example:{PORT}"})
    assert page.status_code == 403


def test_listening_everywhere_still_takes_no_rebound_name(studio_db):
    found = browser(studio_db, guard=Guard("0.0.0.0", PORT))
    for host, status in (("rebound.example", 403), ("192.0.2.7", 401), (socket.gethostname(), 401)):
        answer = found.client.get("/", headers={"Host": f"{host}:{PORT}"})
        assert answer.status_code == status
    found.studio.close()


# -- the real server --------------------------------------------------------------------------------


@contextmanager
def serving(database, **options):
    """The address of a studio that really listens."""
    with open_studio(everything, database, ROOT / "migrations", Options(**options)) as opened:
        httpd, link = opened
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        try:
            yield link
        finally:
            httpd.shutdown()
            thread.join()


def fetch(address, headers=None, data=None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(address, headers=headers or {}, data=data)
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_server_listens_on_this_machine_and_writes_no_log_of_addresses(studio_db, capfd):
    with serving(studio_db) as link:
        assert link.startswith("http://127.0.0.1:")
        assert fetch(f"{link}users?email=ada@example.com")[0] == 200
        assert fetch(link, headers={"Host": "rebound.example"})[0] == 403
        assert fetch(f"{link}users/-/export.csv")[1].startswith("id,email")
        with pytest.raises(QueryError, match="read-only"):
            new_user()
    captured = capfd.readouterr()
    assert "ada@example.com" not in captured.out + captured.err


def test_a_body_that_hides_its_length_is_refused_too(studio_db):
    body = (b"a" * (1 << 16) for _ in range(64))
    with serving(studio_db, write=True) as link:
        address = link.rstrip("/").removeprefix("http://")
        headers = {"Origin": link.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
            connection.request("POST", "/users/-/new", body, headers, encode_chunked=True)
            assert connection.getresponse().status == 411


def test_a_port_that_is_taken_is_told_as_such(studio_db):
    with serving(studio_db) as link:
        options = Options(port=int(link.rstrip("/").rpartition(":")[2]))
        with (
            pytest.raises(ConfigurationError, match="--port"),
            open_studio(everything, db, ROOT, options),
        ):
            pass


def test_writing_to_a_remote_database_is_refused_before_anything_is_opened(studio_db):
    studio_db.init("shop", host="db.example.com")
    with (
        pytest.raises(ConfigurationError, match="--yes-remote"),
        open_studio(everything, studio_db, ROOT, Options(write=True)),
    ):
        pass
