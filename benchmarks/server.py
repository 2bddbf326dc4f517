"""The server of a run, and a database for each contender, all alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks.workloads import ORDERS, SEEDED, SESSIONS_OF_A_USER, USERS, key_of
from orm_core import Database
from orm_core.database.url import DatabaseUrl, parse
from orm_core.embedded import EmbeddedPostgres, binaries
from orm_core.migrations import runner

ROOT = Path(__file__).parents[1]
TEMPLATE = "orm_core_benchmark"
SEED = f"""
INSERT INTO users (id, email, first_name, last_name, provider_account_id)
SELECT ('{SEEDED}' || lpad(n::text, 12, '0'))::uuid,
       'user' || n || '@example.com', 'First' || n, 'Last' || n, 'seeded-' || n
  FROM generate_series(1, {USERS}) n;
INSERT INTO sessions (user_id, provider, provider_account_id, expires_at, metadata,
       provider_access_token, provider_access_token_iv, provider_access_token_tag)
SELECT id, 'google', provider_account_id, '2030-01-01Z', '{{"agent": "benchmark"}}',
       repeat('ab', 150), repeat('cd', 12) || '.k1', repeat('ef', 16)
  FROM users, generate_series(1, {SESSIONS_OF_A_USER}) n;
INSERT INTO orders (id, user_id, status, total)
SELECT ('{SEEDED}' || lpad(n::text, 12, '0'))::uuid,
       '{key_of(1)}', 'paid', n
  FROM generate_series(1, {ORDERS}) n;
VACUUM ANALYZE;
"""
#: every backend does its own work only, so that what is counted belongs to the calls
STEADY = ("-c", "autovacuum=off", "-c", "max_parallel_workers_per_gather=0", "-c", "jit=off")


class Server:
    """A PostgreSQL that copies the benchmark's database for each contender."""

    def __init__(self, url: str) -> None:
        self._url = parse(url)
        self._made: list[str] = []
        with self._admin("postgres") as cursor:
            cursor.execute("SHOW server_version")
            self.version = str(cursor.fetchone()[0]).split()[0]

    def make_template(self) -> None:
        """Migrate and fill the database that the others are copies of."""
        self._create(TEMPLATE)
        params = self._url.replace_database(TEMPLATE).connect_params()
        database = Database(str(params.pop("dbname")), **params)
        try:
            runner.apply(database, ROOT / "migrations")
        finally:
            database.close_all()
        with self._admin(TEMPLATE) as cursor:
            for statement in SEED.split(";\n"):
                if statement:
                    cursor.execute(statement)

    def database(self, name: str) -> str:
        """A new copy of the template; answers its URL."""
        name = f"{TEMPLATE}_{name.replace(' ', '_').replace('-', '_')}"
        self._create(name, TEMPLATE)
        return url_text(self._url.replace_database(name))

    def close(self) -> None:
        """Drop what was created."""
        with self._admin("postgres") as cursor:
            for name in reversed(self._made):
                cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _create(self, name: str, template: str = "template0") -> None:
        with self._admin("postgres") as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)

    @contextmanager
    def _admin(self, database: str) -> Iterator[Any]:
        connection = psycopg2.connect(**self._url.replace_database(database).connect_params())
        connection.autocommit = True
        try:
            yield connection.cursor()
        finally:
            connection.close()


def url_text(url: DatabaseUrl) -> str:
    """A libpq URL."""
    from urllib.parse import quote

    password = f":{quote(url.password, safe='')}" if url.password else ""
    user = f"{quote(url.user, safe='')}{password}@" if url.user else ""
    return f"postgresql://{user}/{url.database}?host={quote(url.host, safe='')}&port={url.port}"


@contextmanager
def given_or_embedded() -> Iterator[Server]:
    """The server of ``DATABASE_URL`` (its role must be allowed to create databases), or ours."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        with under(()) as server:
            yield server
        return
    server = Server(url)
    server.make_template()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def under(command: tuple[str, ...]) -> Iterator[Server]:
    """A server of our own whose processes run under ``command``, valgrind for example."""
    with tempfile.TemporaryDirectory(prefix="orm_core-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, the server's own user must get through
        embedded = EmbeddedPostgres(folder / "server", durable=False)
        try:
            server = Server(embedded.start().url_for("postgres"))
            server.make_template()
            embedded.stop()
            with _programs(_wrap(folder, command)):
                embedded.start()
            yield server
        finally:
            embedded.remove()


@contextmanager
def _programs(folder: Path) -> Iterator[None]:
    """PostgreSQL's programs are those of this folder."""
    name = "ORM_CORE_PG_BINDIR"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _wrap(folder: Path, command: tuple[str, ...]) -> Path:
    """A bin folder whose ``postgres`` starts the real one under the command, steadily."""
    real = binaries.find().folder
    wrapped = folder / "pg" / "bin"
    wrapped.mkdir(parents=True)
    for name in ("lib", "share"):
        (wrapped.parent / name).symlink_to(real.parent / name)
    for path in real.iterdir():
        if path.name != "postgres":
            (wrapped / path.name).symlink_to(path)
    steady = (*STEADY, *(("-c", "io_method=sync") if binaries.find().major >= 18 else ()))
    script = wrapped / "postgres"
    script.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -D ] || exec "{real}/postgres" "$@"\n'
        f'exec {" ".join(command)} "{real}/postgres" "$@" {" ".join(steady)}\n'
    )
    script.chmod(0o755)
    return wrapped
