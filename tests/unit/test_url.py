"""The database URL: what is read from it, what libpq is told, what is never shown."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orm_core import ConfigurationError
from orm_core.database.url import DatabaseUrl, parse

SECRET = "tr0ub4dor-and-3"

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=12)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_schemes_are_read(scheme):
    assert parse(f"{scheme}://ada:pw@db.example.com:6432/shop") == DatabaseUrl(
        "db.example.com", 6432, "ada", "pw", "shop"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h/d", DatabaseUrl("h", 5432, None, None, "d")),
        ("postgresql://h:/d", DatabaseUrl("h", 5432, None, None, "d")),
        ("postgresql:///d", DatabaseUrl("localhost", 5432, None, None, "d")),
        ("postgresql://u@h/d", DatabaseUrl("h", 5432, "u", None, "d")),
        ("postgresql://u:@h/d", DatabaseUrl("h", 5432, "u", "", "d")),
        ("postgresql://u:p%40s%3As%2F@h/d", DatabaseUrl("h", 5432, "u", "p@s:s/", "d")),
        ("postgresql://u%40corp:p@h/d", DatabaseUrl("h", 5432, "u@corp", "p", "d")),
        ("postgresql://u:p%2Bq+r@h/d", DatabaseUrl("h", 5432, "u", "p+q+r", "d")),
        ("postgresql://h/my%20shop", DatabaseUrl("h", 5432, None, None, "my shop")),
        ("postgresql://h/caf%C3%A9", DatabaseUrl("h", 5432, None, None, "café")),
        ("  postgresql://h/d\n", DatabaseUrl("h", 5432, None, None, "d")),
    ],
)
def test_the_parts_of_a_url_are_read(url, expected):
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://[::1]/d", "::1", 5432),
        ("postgresql://u:p@[2001:db8::7]:6000/d", "2001:db8::7", 6000),
    ],
)
def test_an_ipv6_address_stands_in_brackets(url, host, port):
    found = parse(url)
    assert (found.host, found.port) == (host, port)
    assert f"[{host}]:{port}" in str(found)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///d?host=/var/run/Postgres&port=5433",
        "postgresql://%2Fvar%2Frun%2FPostgres:5433/d",
        "postgresql://u:p@%2fvar%2frun%2fPostgres:5433/d",
    ],
)
def test_a_folder_with_a_socket_is_a_host(url):
    found = parse(url)
    assert (found.host, found.port, found.is_socket) == ("/var/run/Postgres", 5433, True)


@pytest.mark.parametrize(
    ("url", "field", "value"),
    [
        ("postgresql:///?dbname=d", "database", "d"),
        ("postgresql:///d?user=ada", "user", "ada"),
        ("postgresql:///d?password=a%26b", "password", "a&b"),
        ("postgresql:///d?password=a+b", "password", "a+b"),
        ("postgresql://u:p@a/d?host=b", "host", "b"),
        ("postgresql://u:p@a:1/d?port=2", "port", 2),
        ("postgresql:///d?application_name=shop", "options", (("application_name", "shop"),)),
    ],
)
def test_the_query_part_says_what_libpq_says(url, field, value):
    assert getattr(parse(url), field) == value


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"mysql://u:{SECRET}@h/d", "must start with postgresql:// or postgres://"),
        (f"u:{SECRET}@h/d", "must start with postgresql:// or postgres://"),
        ("", "must start with postgresql:// or postgres://"),
        (f"postgresql://u:{SECRET}@h", "names no database"),
        (f"postgresql://u:{SECRET}@h/", "names no database"),
        (f"postgresql://u:{SECRET}@h/?sslmode=disable", "names no database"),
        (f"postgresql://u:{SECRET}@h:port/d", "can't be read"),
        (f"postgresql://u:{SECRET}@h:99999/d", "can't be read"),
        (f"postgresql://u:{SECRET}@[::1/d", "can't be read"),
        (f"postgresql://u:{SECRET}/x@h/d", "can't be read"),
        (f"postgresql://u:{SECRET}@h/d?port=p", "port"),
        (f"postgresql://u:{SECRET}@h/d?port=99999", "port"),
        (f"postgresql://u:{SECRET}@h/d?port=-1", "port"),
        (f"postgresql://u:{SECRET}@h/d?port=0", "port"),
    ],
)
def test_a_malformed_url_is_refused_and_not_repeated(url, told):
    with pytest.raises(ConfigurationError) as caught:
        parse(url)
    assert told in str(caught.value)
    assert SECRET not in f"{caught.value!r} {caught.value.__context__!r}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", [None, b"postgresql://h/d", 5432])
def test_a_url_that_is_no_text_is_refused(url):
    with pytest.raises(ConfigurationError):
        parse(url)


@pytest.mark.parametrize("password", ["se/cret-1", "12/secret", "se?cret-1", "5#secret", "se#cret"])
def test_a_password_with_raw_special_characters_is_refused_or_stays_hidden(password):
    tail = password[-5:]
    try:
        shown = str(parse(f"postgresql://ada:{password}@db.example.com/shop"))
    except ConfigurationError as error:
        shown = str(error)
    assert tail not in shown


@given(password=words, user=words, database=words)
def test_any_encoded_password_is_read_and_never_shown(password, user, database):
    url = parse(
        f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@h/{quote(database, safe='')}"
    )
    assert (url.user, url.password, url.database) == (user, password, database)
    without = DatabaseUrl("h", 5432, user, None, database)
    assert (str(url), repr(url)) == (str(without), repr(without))


@given(text=st.text())
def test_any_text_is_read_or_refused_with_one_error(text):
    with suppress(ConfigurationError):
        assert parse(f"postgresql://{text}").database


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "app.localhost", "%2Ftmp"]
)
def test_a_server_on_this_machine_need_not_verify(host):
    url = parse(f"postgresql://{host}/d")
    assert url.is_local
    assert url.connect_params()["sslmode"] == "prefer"


@pytest.mark.parametrize(
    "host", ["db.example.com", "10.0.0.1", "[2001:db8::7]", "localhost.example.com", "0.0.0.0"]
)
def test_a_server_elsewhere_is_verified_with_the_systems_roots(host):
    url = parse(f"postgresql://{host}/d")
    assert not url.is_local
    params = url.connect_params()
    assert (params["sslmode"], params["sslrootcert"]) == ("verify-full", "system")


@pytest.mark.parametrize(
    ("in_url", "ssl", "mode"),
    [
        (None, None, "verify-full"),
        (None, True, "verify-full"),
        (None, False, "disable"),
        (None, "require", "require"),
        ("require", None, "require"),
        ("require", True, "verify-full"),
        ("require", False, "disable"),
        ("disable", "verify-ca", "verify-ca"),
    ],
)
def test_the_argument_goes_before_the_urls_sslmode(in_url, ssl, mode):
    query = f"?sslmode={in_url}" if in_url else ""
    url = parse(f"postgresql://db.example.com/d{query}")
    assert url.connect_params(ssl=ssl)["sslmode"] == mode


@pytest.mark.parametrize(
    ("query", "ssl"), [("", "sure"), ("?sslmode=sure", None), ("", "VERIFY-FULL")]
)
def test_an_unknown_sslmode_is_refused(query, ssl):
    with pytest.raises(ConfigurationError, match="sslmode"):
        parse(f"postgresql://h/d{query}").connect_params(ssl=ssl)


@pytest.mark.parametrize(
    ("query", "given", "root"),
    [
        ("", None, "system"),
        ("?sslrootcert=/url.pem", None, "/url.pem"),
        ("", "/given.pem", "/given.pem"),
        ("?sslrootcert=/url.pem", "/given.pem", "/given.pem"),
    ],
)
def test_the_root_certificate_is_the_given_one_else_the_urls_else_the_systems(query, given, root):
    params = parse(f"postgresql://h/d{query}").connect_params(ssl_root_cert=given)
    assert params["sslrootcert"] == root


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca"])
def test_the_systems_roots_are_for_full_verification_only(mode):
    assert "sslrootcert" not in parse("postgresql://h/d").connect_params(ssl=mode)


def test_the_driver_gets_each_part_and_the_urls_options():
    url = parse("postgresql://u:p@h:6432/d?application_name=shop&target_session_attrs=read-write")
    assert url.connect_params(ssl=False, connect_timeout=3) == {
        "host": "h",
        "port": 6432,
        "user": "u",
        "password": "p",
        "dbname": "d",
        "sslmode": "disable",
        "connect_timeout": 3,
        "application_name": "shop",
        "target_session_attrs": "read-write",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 30_000,
    }


def test_a_silent_server_is_noticed_as_the_url_says():
    url = parse("postgresql://h/d?keepalives_idle=60&tcp_user_timeout=0")
    params = url.connect_params()
    assert (params["keepalives_idle"], params["tcp_user_timeout"]) == ("60", "0")


def test_another_database_of_the_same_server_keeps_the_rest():
    url = parse("postgresql://u:p@h:6432/d?sslmode=require")
    assert url.replace_database("e") == parse("postgresql://u:p@h:6432/e?sslmode=require")
