"""Prepared statements: on each connection for itself, the same answers as text, come what may."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import peewee
import psycopg2
import pytest
from auditing import ItemsService, audited, entries
from service_helpers import User, UsersService, connect_params, new_user, user_data

from orm_core import (
    BaseModel,
    DuplicateKey,
    IntegerField,
    InvalidStatement,
    NoAnswer,
    OtherField,
    QueryError,
    SerializationFailure,
    StatementTimeout,
    TextField,
    acting_as,
    compiled,
    connect_db,
    db,
    initialize_db,
    parameter,
    time_limit,
    transaction,
)
from orm_core.database import prepared
from orm_core.database.url import parse
from orm_core.models.schema import create_all


class Part(BaseModel):
    label = TextField(null=True)
    size = IntegerField(null=True)

    class Meta:
        table_name = "prepared_parts"


@pytest.fixture
def url(orm_core_server, clone_db) -> str:
    return str(orm_core_server.url(clone_db.database))


@pytest.fixture
def preparing(url) -> Iterator[str]:
    """``db`` that prepares, on one connection, with the table of ``Part``."""
    initialize_db(url, prepare=True, pool_size=1)
    create_all(db, [Part])
    yield url
    db.close_all()


def elsewhere(url: str, *statements: str) -> None:
    """Run statements in a session of their own, as somebody else would."""
    with closing(psycopg2.connect(**connect_params(url))) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement)


def names() -> list[str]:
    """What the server keeps for this thread's connection."""
    cursor = db.execute_sql("SELECT statement FROM pg_prepared_statements ORDER BY prepare_time")
    return [statement for (statement,) in cursor.fetchall()]


def by_label(label: str) -> list[Any]:
    return list(Part.select().where(Part.label == label))


def warm(times: int = 3) -> None:
    for _ in range(times):
        by_label("x")


def test_a_statement_is_prepared_when_it_is_sent_again(preparing):
    with db.connection_context():
        by_label("x")
        assert names() == []
        by_label("y")
        assert len(names()) == 1
        by_label("z")
        assert len(names()) == 1


def test_nothing_is_prepared_unless_it_was_asked_for(unasked, clone_db):
    with db.connection_context():
        for _ in range(3):
            UsersService.find_by_id(new_user().id)
        assert names() == []


def test_every_verb_of_a_service_is_prepared_and_answers_the_same(preparing):
    with db.connection_context():
        for round_ in range(4):
            user = UsersService.create(user_data())
            assert UsersService.get(user.id) == user
            assert UsersService.find_by_email(user.email) == user
            changed = UsersService.update(user.id, {"last_name": None, "first_name": "%s $1 %%"})
            assert (changed.first_name, changed.last_name) == ("%s $1 %%", None)
            assert UsersService.soft_delete(user.id).is_deleted
            assert UsersService.find_by_id(user.id) is None
            assert UsersService.find_by_id(user.id, include_deleted=True) == user, round_
            assert UsersService.restore(user.id) == user
            mine = {"id": user.id}
            assert UsersService.find(mine) == user
            assert UsersService.list(mine) == [user]
            assert (UsersService.count(mine), UsersService.exists(mine)) == (1, True)
            assert UsersService.update_where(mine, {"first_name": f"{round_}"}) == 1
            first = UsersService.page(size=1)
            assert len(first) == 1
            if round_:
                assert len(UsersService.page(size=1, after=first.next_cursor)) == 1
        kept = "\n".join(names())
        for verb in (
            "INSERT",
            "SELECT",
            "UPDATE",
            "COUNT",
            "EXISTS",
            "FOR UPDATE",
            "LIMIT",
            ") > (",
        ):
            assert verb in kept
        assert user.email not in kept


def test_values_that_look_like_sql_stay_values(preparing):
    with db.connection_context():
        for text in ("$1", "%s", "%%", "%(x)s", "'; DROP TABLE users --", "\\", "", "$$", "é"):
            part = Part.create(label=text)
            for _ in range(3):
                assert by_label(text)[0].id == part.id
                found = list(Part.select().where(Part.label.contains(text), Part.id == part.id))
                assert [one.id for one in found] == [part.id]


def test_text_of_the_sql_itself_may_hold_dollars_and_percent_signs(preparing):
    Part.create(label="$1 50%")
    odd = compiled(
        Part.select(Part.label)
        .where(peewee_sql("'$1 50%%' = label"), Part.label == parameter("label"))
        .tuples()
    )
    with db.connection_context():
        for _ in range(4):
            assert odd(label="$1 50%") == [("$1 50%",)]
        assert len(names()) == 1


def peewee_sql(text: str) -> Any:
    from peewee import SQL

    return SQL(text)


def test_an_error_is_translated_like_that_of_a_text(preparing):
    taken = new_user().email
    for _ in range(4):
        with pytest.raises(DuplicateKey) as caught:
            UsersService.create(user_data(email=taken))
        assert caught.value.columns == ("email",)
        assert taken not in str(caught.value)


CHANGES = {
    "a column is added": "ALTER TABLE prepared_parts ADD COLUMN extra int",
    "a column gets another type": "ALTER TABLE prepared_parts ALTER COLUMN size TYPE bigint",
    "the key becomes text": "ALTER TABLE prepared_parts ALTER COLUMN id TYPE text",
    "a text becomes longer": "ALTER TABLE prepared_parts ALTER COLUMN label TYPE varchar(99)",
    "the table is made anew": "CREATE TABLE swap (LIKE prepared_parts INCLUDING ALL);"
    "DROP TABLE prepared_parts; ALTER TABLE swap RENAME TO prepared_parts",
    "an index comes": "CREATE INDEX ON prepared_parts (label)",
}
FORGETTING = {"discard": "DISCARD ALL", "deallocate": "DEALLOCATE ALL"}


def use(number: int) -> None:
    """All kinds of statements on parts; each finds what the one before wrote."""
    part = Part.create(label=f"p{number}", size=number)
    assert [one.size for one in by_label(f"p{number}")] == [number]
    assert Part.get_by_id(part.id).size == number
    resize = compiled(Part.update(size=parameter("size")).where(Part.id == parameter("id")))
    assert resize(size=number + 1, id=part.id) == 1
    assert [one.size for one in Part.select(Part.size).where(Part.id == part.id)] == [number + 1]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_table_between_uses_is_not_noticed(preparing, change):
    with db.connection_context():
        for number in range(3):
            use(number)
        elsewhere(preparing, change)
        for number in range(3, 7):
            use(number)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_table_is_met_by_the_first_statement_of_a_transaction(preparing, change):
    with db.connection_context():
        warm()
        elsewhere(preparing, change)
        with transaction():
            assert by_label("x") == []
            use(1)
        assert by_label("p1")


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_statements_that_somebody_dropped_are_prepared_anew(preparing, forget):
    with db.connection_context():
        warm()
        db.execute_sql(forget)
        warm(4)
        assert len(names()) == 1


@pytest.mark.parametrize("forget", ["DEALLOCATE ALL"])
def test_in_a_transaction_dropped_statements_say_run_again_and_then_it_works(preparing, forget):
    with db.connection_context():
        warm()
        with pytest.raises(SerializationFailure, match="run it again"), transaction():  # noqa: PT012
            db.execute_sql("SELECT 1")
            db.execute_sql(forget)
            by_label("x")
        for _ in range(3):
            with transaction():
                db.execute_sql("SELECT 1")
                assert by_label("x") == []


def test_a_change_inside_a_transaction_says_run_again_and_then_it_works(preparing):
    with db.connection_context():
        warm()
        with pytest.raises(SerializationFailure), transaction():  # noqa: PT012
            by_label("x")
            db.execute_sql("ALTER TABLE prepared_parts ALTER COLUMN size TYPE bigint")
            by_label("x")
        with transaction():
            db.execute_sql("ALTER TABLE prepared_parts ALTER COLUMN size TYPE bigint")
            db.execute_sql("SELECT 1")
        for _ in range(3):
            with transaction():
                db.execute_sql("SELECT 1")
                assert by_label("x") == []


def test_a_dropped_column_fails_as_it_does_for_a_text_and_returns_with_it(preparing):
    find = compiled(Part.select(Part.label).where(Part.size == parameter("size")))
    with db.connection_context():
        for _ in range(3):
            find(size=1)
        elsewhere(preparing, "ALTER TABLE prepared_parts RENAME COLUMN size TO extent")
        for _ in range(3):
            with pytest.raises(InvalidStatement, match="column does not exist"):
                find(size=1)
        elsewhere(preparing, "ALTER TABLE prepared_parts RENAME COLUMN extent TO size")
        assert [find(size=1) for _ in range(3)] == [[], [], []]


def test_an_error_that_only_looks_like_a_change_is_told_as_it_is(preparing):
    elsewhere(
        preparing,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE feature_not_supported; END $$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON prepared_parts FOR EACH ROW "
        "WHEN (NEW.size = 13) EXECUTE FUNCTION refuse()",
    )
    part = Part.create(size=1)
    resize = compiled(Part.update(size=parameter("size")).where(Part.id == parameter("id")))
    with db.connection_context():
        for size in (1, 2, 3):
            resize(size=size, id=part.id)
        with pytest.raises(Exception, match="0A000"):
            resize(size=13, id=part.id)
        seen = []
        for _ in range(3):
            with pytest.raises(Exception) as caught, transaction():  # noqa: PT012
                db.execute_sql("SELECT 1")
                resize(size=13, id=part.id)
            seen.append(str(caught.value))
        assert all("0A000" in text for text in seen)


def test_a_lock_that_the_server_refuses_is_told_as_it_is_inside_a_transaction(preparing):
    new_user()
    both = User.select().join(Part, peewee.JOIN.LEFT_OUTER, on=User.email == Part.label)
    for _ in range(4):
        with pytest.raises(QueryError, match="0A000"), transaction():  # noqa: PT012
            db.execute_sql("SELECT 1")
            list(both.for_update())


def test_statements_kept_on_a_connection_are_bounded(preparing, monkeypatch):
    monkeypatch.setattr(prepared, "MOST", 5)
    queries = [
        compiled(Part.select().where(Part.size == parameter("size")).limit(1).offset(n))
        for n in range(12)
    ]
    made = [
        compiled(Part.select(Part.id).where(Part.size == parameter("x"), Part.size < n_conditions))
        for n_conditions in range(3)
    ]
    distinct = [
        compiled(Part.select(*fields).where(Part.size == parameter("x")))
        for fields in (
            (Part.id,), (Part.label,), (Part.size,), (Part.id, Part.size), (Part.size, Part.id),
            (Part.label, Part.id), (Part.id, Part.label), (Part.label, Part.size),
        )
    ]  # fmt: skip
    with db.connection_context():
        for _ in range(8):
            for query in queries:
                query(size=1)
            for query in (*made, *distinct):
                query(x=1)
            assert len(db._state.conn.prepared._calls) <= 5
            assert len(names()) <= 5 + 1  # what was dropped goes with the next one that is made
        assert len(db._state.conn.prepared._seen) <= 50


def test_what_is_sent_in_turn_does_not_drive_itself_out_each_time(preparing, monkeypatch):
    monkeypatch.setattr(prepared, "MOST", 2)
    distinct = [
        compiled(Part.select(field).where(Part.size == parameter("x")))
        for field in (Part.id, Part.label, Part.size)
    ]
    with db.connection_context():
        for _ in range(10):
            for query in distinct:
                query(x=1)
        made = next(db._state.conn.prepared._numbers)
    assert made <= 1 + 30 // 2


def test_a_lost_connection_is_replaced_and_prepares_for_itself(preparing):
    with db.connection_context():
        warm()
        elsewhere(
            preparing,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()",
        )
        with suppress(Exception):
            by_label("x")
        assert by_label("x") == []
        assert by_label("x") == []
        assert by_label("x") == []
        assert len(names()) == 1


def test_threads_prepare_each_on_its_own_connection(url):
    initialize_db(url, prepare=True, pool_size=4)
    create_all(db, [Part])
    for number in range(4):
        Part.create(label=str(number), size=number)
    wrong: list[Any] = []

    def work(number: int) -> None:
        try:
            for _ in range(40):
                found = [one.size for one in by_label(str(number))]
                if found != [number]:
                    wrong.append(found)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_child_process_prepares_on_connections_of_its_own(preparing):
    warm()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            warm(4)
            os.write(writing, b"fine" if by_label("x") == [] else b"odd")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 9) == b"fine"
    os.close(reading)
    os.close(writing)
    warm(4)


class Loose(BaseModel):
    """A model whose columns are of other types in the table."""

    number = IntegerField(null=True)
    other = OtherField("numeric", null=True)

    class Meta:
        table_name = "prepared_loose"


def test_a_value_of_another_type_than_the_column_is_never_rounded(preparing):
    from decimal import Decimal

    from orm_core import DecimalField, DoubleField

    class Exact(BaseModel):
        price = DecimalField(8, 2, null=True)
        ratio = DoubleField(null=True)

        class Meta:
            table_name = "prepared_exact"

    create_all(db, [Exact])
    elsewhere(
        preparing,
        "ALTER TABLE prepared_exact ALTER price TYPE integer, ALTER ratio TYPE real",
        "INSERT INTO prepared_exact (price, ratio) VALUES (2, 1.1)",
    )
    with db.connection_context():
        counts = [
            len(Exact.select(Exact.id).where(Exact.price == value))
            for value in (Decimal(1), Decimal("1.5"), Decimal("1.6"), Decimal(2), Decimal("2.4"))
        ]
        ratios = [len(Exact.select(Exact.id).where(Exact.ratio == 1.1)) for _ in range(4)]
    assert counts == [0, 0, 0, 1, 0]
    assert ratios == [0, 0, 0, 0]


def test_what_can_not_be_prepared_is_sent_as_text(preparing):
    create_all(db, [Loose])
    elsewhere(preparing, "ALTER TABLE prepared_loose ALTER number TYPE text")
    find = compiled(Loose.select(Loose.id).where(Loose.number < parameter("number")))
    with db.connection_context():
        seen = []
        for _ in range(4):
            with pytest.raises(InvalidStatement) as caught:
                find(number=3)  # text < integer
            seen.append(caught.value.sqlstate)
        assert set(seen) == {"42883"}
        assert names() == []


def test_null_and_a_value_take_turns(preparing):
    part = Part.create()
    rename = compiled(Part.update(label=parameter("label")).where(Part.id == parameter("id")))
    with db.connection_context():
        for label in (None, "x", None, None, "y", None):
            assert rename(label=label, id=part.id) == 1
            assert Part.get_by_id(part.id).label == label


def test_hooks_see_the_statement_and_nothing_of_the_preparing(preparing):
    seen: list[Any] = []
    with db.connection_context():
        db.query_hooks.append(seen.append)
        try:
            warm(4)
            with transaction():
                by_label("y")
        finally:
            db.query_hooks.remove(seen.append)
    verbs = [event.sql.split()[0] for event in seen]
    assert verbs == ["SELECT"] * 4 + ["BEGIN", "SELECT", "COMMIT"]
    assert [event.params for event in seen if event.params] == [["x"]] * 4 + [["y"]]


def test_an_interrupt_does_not_send_a_statement_twice(unasked, clone_db, monkeypatch):
    """Ctrl-C may arrive when the server has answered and the driver has not returned yet."""
    new_user()
    with db.connection_context():
        connection = db._state.conn

        class Late(type(connection.cursor())):
            def execute(self, sql: Any, params: Any = None) -> None:
                super().execute(sql, params)
                if "INSERT" in str(sql):
                    raise KeyboardInterrupt

        monkeypatch.setattr(connection, "cursor_factory", Late)
        before = len(User.select())
        with pytest.raises(KeyboardInterrupt), transaction():
            new_user()
        with pytest.raises(KeyboardInterrupt), transaction() as tx:  # noqa: PT012
            try:
                new_user()
            except KeyboardInterrupt:
                assert tx.sent
                assert len(User.select()) == before + 1
                raise
        assert len(User.select()) == before


# -- behind a pooler ------------------------------------------------------------------------

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(check: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            check()
            return
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture
def pooled(url) -> Iterator[str]:
    """The URL of the database through pgbouncer in transaction mode, with two server sessions."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    target = parse(url)
    port = _free_port()
    folder = Path(tempfile.mkdtemp(prefix="orm_core-pgbouncer-"))
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={target.host} port={target.port} user={target.user}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        "ignore_startup_parameters = options\n"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [PGBOUNCER, str(config)], stdout=log, stderr=log, **_as_somebody(folder, target.host)
        )
    through = f"postgresql://{target.user}@127.0.0.1:{port}/{target.database}?sslmode=disable"
    try:
        _wait_for(lambda: psycopg2.connect(through).close())
        yield through
    finally:
        db.close_all()
        server.kill()
        server.wait()
        shutil.rmtree(folder)


def _as_somebody(folder: Path, host: str) -> dict[str, Any]:
    """pgbouncer refuses to run as root, and must reach the folder of the server's socket."""
    if os.getuid() != 0:
        return {}
    somebody = Path(host).stat().st_uid if host.startswith("/") else 65534
    for path in (folder, *folder.iterdir()):
        os.chown(path, somebody, -1)
    return {"user": somebody}


def test_behind_a_pooler_each_change_is_told_with_its_own_actor(pooled):
    initialize_db(pooled, pool_size=4)

    def work(name: str) -> None:
        for number in range(10):
            with acting_as(name):
                ItemsService.create({"name": name})
            with acting_as(name), transaction():
                ItemsService.create({"name": name})
            ItemsService.create({"name": f"nobody {number}"})

    with audited():
        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [(entry.actor, entry.new["name"]) for entry in entries()]
    assert len(found) == 120
    assert all(actor == (None if name.startswith("nobody") else name) for actor, name in found)


def test_behind_a_pooler_nothing_is_prepared_and_all_works(pooled, caplog):
    initialize_db(pooled, prepare=True, pool_size=6)
    with caplog.at_level("INFO", logger="orm_core.database"):
        connect_db()
    assert "goes through a pooler" in caplog.text
    create_all(db, [Part])
    wrong: list[Any] = []

    def work(number: int) -> None:
        try:
            for count in range(15):
                label = f"{number}.{count}"
                with transaction():
                    Part.create(label=label, size=count)
                    if [one.size for one in by_label(label)] != [count]:
                        wrong.append(label)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert Part.select().count() == 90
    with db.connection_context():
        assert db._state.conn.prepared is None
        assert names() == []


def _shown() -> str:
    return str(db.execute_sql("SHOW statement_timeout").fetchone()[0])


def test_behind_a_pooler_a_block_has_its_limit_and_leaves_none(pooled):
    initialize_db(pooled, pool_size=4)
    with time_limit(0.2), pytest.raises(StatementTimeout):
        db.execute_sql("SELECT pg_sleep(20)")
    with transaction():
        with time_limit(20):
            assert _shown() not in ("0", "30s")
        assert _shown() == "0"
    assert {_shown() for _ in range(5)} == {"0"}


def test_behind_a_pooler_a_statement_that_is_too_slow_ends_by_the_setting(pooled):
    initialize_db(pooled, pool_size=2, statement_timeout=0.1)
    with pytest.raises(NoAnswer):
        db.execute_sql("SELECT pg_sleep(20)")
    assert db.execute_sql("SELECT 1").fetchone() == (1,)
