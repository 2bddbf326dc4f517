"""``connect_db()`` on real servers: each failure has its own error, cause and fix."""

from __future__ import annotations

import gc
import secrets
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg2
import pytest
from private_server import Cluster, PrivateServer, cluster
from tls_server import tls_front, write_authority, write_server_certificate

from orm_core import (
    AuthenticationFailed,
    ConnectionFailed,
    ConnectionRefused,
    ConnectTimeout,
    DatabaseMissing,
    HostUnknown,
    ServerUnavailable,
    TlsFailed,
    close_db,
    connect_db,
    db,
    initialize_db,
    time_limit,
)
from orm_core.database.pool_stats import PoolStats

PASSWORD = secrets.token_urlsafe(18)
DEADLINE = 60.0


@pytest.fixture(autouse=True)
def only_what_the_test_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("DATABASE_URL", "ORM_CORE_SSL_MODE", "ORM_CORE_SSL_ROOT_CERT", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    close_db()
    db.init(None)


@pytest.fixture(scope="module")
def files() -> Iterator[Cluster]:
    with cluster(PASSWORD) as made:
        yield made


@pytest.fixture(scope="module")
def server(files: Cluster) -> Iterator[PrivateServer]:
    """Offers TLS, with a certificate for localhost that the root ``trusted`` signed."""
    write_authority(files.folder, "stranger")
    authority = write_authority(files.folder, "trusted")
    certificate, key = write_server_certificate(files.folder, authority, ("localhost",))
    with files.serve("server") as plain, tls_front(plain, certificate, key) as one:
        one.run(
            "CREATE ROLE app LOGIN PASSWORD '{password}'",
            "CREATE ROLE limited LOGIN PASSWORD '{password}' CONNECTION LIMIT 0",
            "CREATE ROLE guest NOLOGIN PASSWORD '{password}'",
            "SET password_encryption = 'md5'",
            "CREATE ROLE old LOGIN PASSWORD '{password}'",
            "CREATE DATABASE shop",
            "CREATE DATABASE crowded CONNECTION LIMIT 0",
            "CREATE DATABASE locked",
            "REVOKE CONNECT ON DATABASE locked FROM PUBLIC",
        )
        yield one


@pytest.fixture(scope="module")
def small_server(files: Cluster) -> Iterator[PrivateServer]:
    """Offers no TLS, and three connections, of which one is a superuser's."""
    limits = {"max_connections": "3", "superuser_reserved_connections": "1", "max_wal_senders": "0"}
    with files.serve("small", **limits) as one:
        one.run("CREATE ROLE app LOGIN PASSWORD '{password}'")
        yield one


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where something listens and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose backlog is full, so that the kernel answers no more packets."""
    with ExitStack() as stack:
        listener = stack.enter_context(closing(socket.socket()))
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            link = stack.enter_context(closing(socket.socket()))
            link.setblocking(False)
            link.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def failure(url: str, **settings: object) -> ConnectionFailed:
    """What ``connect_db()`` raises; checked for secrets, leaks and chained driver errors."""
    initialize_db(url, **settings)
    with pytest.raises(ConnectionFailed) as caught:
        connect_db()
    error = caught.value
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)
    assert PASSWORD not in told
    assert "wr0ng-" not in told
    assert (error.__cause__, error.__context__) == (None, None)
    assert db.pool_stats() == PoolStats(10, 0, 0, 0)
    gc.collect()  # a socket left open is a ResourceWarning
    return error


def test_it_opens_a_connection_and_keeps_it(server):
    initialize_db(server.url("shop", "app"))
    connect_db()
    assert db.pool_stats().idle == 1


def test_a_server_that_does_not_run_is_a_refused_connection():
    port = free_port()
    error = failure(f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/shop")
    assert type(error) is ConnectionRefused
    for told in ("Connection refused", f"127.0.0.1:{port}", "DATABASE_URL", "docker compose ps"):
        assert told in str(error)


def test_a_missing_socket_is_a_refused_connection(tmp_path):
    error = failure(f"postgresql://app@/shop?host={tmp_path}")
    assert type(error) is ConnectionRefused
    assert str(tmp_path) in str(error)


@pytest.mark.parametrize("user", ["app", "old"])
@pytest.mark.parametrize("ssl", ["disable", "prefer", "require"])
def test_a_wrong_password_is_told_with_the_user(server, ssl, user):
    error = failure(server.url("shop", user, "wr0ng-password"), ssl=ssl)
    assert type(error) is AuthenticationFailed
    for told in (repr(user), "wrong password", "DATABASE_URL", "%XX"):
        assert told in str(error)


@pytest.mark.parametrize("user", ["nobody_we_know", "guest"])
def test_a_user_who_may_not_log_in_is_refused(server, user):
    assert type(failure(server.url("shop", user))) is AuthenticationFailed


def test_a_missing_password_is_told_like_a_wrong_one(server, monkeypatch, tmp_path):
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    error = failure(f"postgresql://app@127.0.0.1:{server.port}/shop")
    assert type(error) is AuthenticationFailed


@pytest.mark.parametrize("user", ["app", "old"])
@pytest.mark.parametrize("ssl", ["disable", "prefer", "require"])
def test_a_missing_database_is_told_by_name(server, ssl, user):
    error = failure(server.url("shopp", user), ssl=ssl)
    assert type(error) is DatabaseMissing
    for told in ("'shopp'", "createdb", "DATABASE_URL"):
        assert told in str(error)


def test_a_missing_database_behind_a_socket_is_told_by_name(orm_core_server):
    error = failure(orm_core_server.url("shopp"))
    assert type(error) is DatabaseMissing
    assert "'shopp'" in str(error)


def test_a_missing_database_with_a_wrong_password_is_a_wrong_password(server):
    assert type(failure(server.url("shopp", "app", "wr0ng-password"))) is AuthenticationFailed


def test_a_database_that_the_user_may_not_enter_is_neither_missing_nor_a_wrong_password(server):
    error = failure(server.url("locked", "app"))
    assert type(error) is AuthenticationFailed
    assert "CONNECT" in str(error)


def test_a_host_that_does_not_resolve_is_told_by_name():
    error = failure(f"postgresql://app:{PASSWORD}@no-such-host.invalid/shop")
    assert type(error) is HostUnknown
    for told in ("'no-such-host.invalid'", "spelling", "DATABASE_URL"):
        assert told in str(error)


@pytest.mark.parametrize("port", ["silent_port", "full_port"])
def test_a_server_that_never_answers_is_a_time_out(port, request):
    port = request.getfixturevalue(port)
    url = f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/shop"
    started = time.monotonic()
    error = failure(url, connect_timeout=1)
    assert time.monotonic() - started < 30  # it ends by itself, however busy the machine
    assert type(error) is ConnectTimeout
    for told in (f"127.0.0.1:{port}", "firewall", "ORM_CORE_CONNECT_TIMEOUT"):
        assert told in str(error)


def test_a_port_of_another_kind_of_server_is_refused():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]

        def greet_and_hang_up() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                with link:
                    link.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=greet_and_hang_up, daemon=True)
        thread.start()
        try:
            failure(f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/shop")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


# TLS


def test_tls_that_the_server_does_not_offer_is_told(small_server):
    error = failure(small_server.url(user="app"), ssl="require")
    assert type(error) is TlsFailed
    for told in ("TLS", "ORM_CORE_SSL_MODE", f"127.0.0.1:{small_server.port}"):
        assert told in str(error)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full", "require"])
def test_a_certificate_of_an_untrusted_root_is_refused(server, files, mode):
    root = files.folder / "stranger.pem"
    error = failure(server.url("shop", "app", host="localhost"), ssl=mode, ssl_root_cert=str(root))
    assert type(error) is TlsFailed
    assert "ORM_CORE_SSL_ROOT_CERT" in str(error)


def test_the_systems_roots_do_not_trust_a_certificate_of_our_own(server):
    error = failure(server.url("shop", "app", host="localhost"), ssl=True)
    assert type(error) is TlsFailed


def test_a_certificate_for_another_name_is_refused(server, files):
    root = str(files.folder / "trusted.pem")
    error = failure(server.url("shop", "app", host="127.0.0.1"), ssl=True, ssl_root_cert=root)
    assert type(error) is TlsFailed
    assert "another name" in str(error)


@pytest.mark.parametrize("content", [None, "", "no certificate at all"])
def test_an_unreadable_root_certificate_is_a_matter_of_tls(server, tmp_path, content):
    root = tmp_path / "root.pem"
    if content is not None:
        root.write_text(content)
    error = failure(server.url("shop", "app", host="localhost"), ssl=True, ssl_root_cert=str(root))
    assert type(error) is TlsFailed


@pytest.mark.parametrize(
    ("mode", "host"), [("verify-full", "localhost"), ("verify-ca", "127.0.0.1")]
)
def test_a_certificate_of_the_given_root_is_trusted(server, files, mode, host):
    root = str(files.folder / "trusted.pem")
    initialize_db(server.url("shop", "app", host=host), ssl=mode, ssl_root_cert=root)
    connect_db()
    with db.connection_context():
        connection = db.connection()
        of_libpq = getattr(connection, "pgconn", None) or connection.info  # psycopg 3, psycopg 2
        assert of_libpq.ssl_in_use


@pytest.mark.parametrize(
    ("database", "password", "expected"),
    [("shop", "wr0ng-password", AuthenticationFailed), ("shopp", None, DatabaseMissing)],
)
def test_a_refusal_inside_a_verified_connection_is_not_a_matter_of_tls(
    server, files, database, password, expected
):
    root = str(files.folder / "trusted.pem")
    url = server.url(database, "app", password, host="localhost")
    assert type(failure(url, ssl=True, ssl_root_cert=root)) is expected


# A server without room


@pytest.mark.parametrize(("user", "database"), [("limited", "shop"), ("app", "crowded")])
def test_a_connection_limit_is_an_unavailable_server(server, user, database):
    error = failure(server.url(database, user))
    assert type(error) is ServerUnavailable
    assert "53300" in str(error)


@pytest.mark.parametrize("held", [2, 3])
def test_a_server_whose_connections_are_all_in_use_is_unavailable(small_server, held):
    with ExitStack() as stack:
        for _ in range(held):
            stack.enter_context(closing(psycopg2.connect(small_server.url())))
        error = failure(small_server.url(user="app"))
    assert type(error) is ServerUnavailable
    for told in ("53300", "max_connections"):
        assert told in str(error)


def test_a_server_that_is_starting_is_unavailable(files):
    with files.serve("starting", standby=True) as starting:
        error = failure(starting.url())
    assert type(error) is ServerUnavailable
    for told in ("57P03", "starting"):
        assert told in str(error)


def test_a_failed_connection_is_tried_anew_by_the_next_statement(server):
    server.run("DROP DATABASE IF EXISTS late")
    failure(server.url("late"))
    server.run("CREATE DATABASE late")
    connect_db()


def test_a_query_that_can_not_connect_fails_like_connect_db(server):
    initialize_db(server.url("shopp", "app"))
    with pytest.raises(DatabaseMissing):
        db.execute_sql("SELECT 1")


# Trying again


def test_a_server_that_starts_late_is_waited_for(files, caplog):
    process = files.prepare("late")
    timer = threading.Timer(0.3, process.start)
    timer.start()
    try:
        initialize_db(process.server.url())
        connect_db(retry_for=60)
        assert db.execute_sql("SELECT 1").fetchone() == (1,)
    finally:
        close_db()
        timer.join()
        process.stop()
    assert "Trying again in" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_server_that_never_starts_is_told_in_the_end():
    initialize_db(f"postgresql://app@127.0.0.1:{free_port()}/shop")
    started = time.monotonic()
    with pytest.raises(ConnectionRefused):
        connect_db(retry_for=0.5)
    assert time.monotonic() - started >= 0.5


def test_a_time_limit_ends_the_waiting():
    initialize_db(f"postgresql://app@127.0.0.1:{free_port()}/shop")
    with time_limit(0.3), pytest.raises((ConnectionRefused, ConnectTimeout)):
        connect_db(retry_for=DEADLINE)


def test_ctrl_c_ends_the_waiting():
    initialize_db(f"postgresql://app@127.0.0.1:{free_port()}/shop")
    threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,)).start()
    with pytest.raises(KeyboardInterrupt):
        connect_db(retry_for=DEADLINE)
    assert db.pool_stats() == PoolStats(10, 0, 0, 0)


def test_a_wrong_password_is_not_tried_again(server, caplog):
    initialize_db(server.url(password="wr0ng-" + PASSWORD))
    with pytest.raises(AuthenticationFailed):
        connect_db(retry_for=DEADLINE)
    assert "Trying again" not in caplog.text


@pytest.mark.parametrize("port", ["silent_port", "full_port"])
def test_connecting_ends_with_the_block_around_it(port, request):
    port = request.getfixturevalue(port)
    initialize_db(f"postgresql://app@127.0.0.1:{port}/shop", connect_timeout=20)
    started = time.monotonic()
    with time_limit(0.2), pytest.raises(ConnectTimeout, match="time_limit"):
        connect_db()
    assert time.monotonic() - started < 15
    assert db.pool_stats() == PoolStats(10, 0, 0, 0)
