"""Changing keys: nothing is lost, whoever writes meanwhile, wherever it is stopped."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domains.users import Session, SessionProvider, SessionService, User
from orm_core import (
    BaseModel,
    EncryptedJSONField,
    EncryptedTextField,
    IndexKeys,
    InvalidValue,
    KeyRing,
    Secret,
    SecretJSON,
    SecretUnreadable,
    db,
    use_index_keys,
    use_key_ring,
    utcnow,
)
from orm_core.rotation import KeyUse, check, rotate, status

TOP = Path(__file__).resolve().parents[2]
CANARY = "canary-ya29.a0AfH6"
KEY_1 = "8f1d2c3b4a59687766554433221100ffeeddccbbaa99887766554433221100aa"
OLD, NEW = f"k1:{KEY_1}", KeyRing.generate("k2")
INDEX_OLD, INDEX_NEW = IndexKeys.generate("i1"), IndexKeys.generate("i2")
TOKEN, REFRESH = "provider_access_token", "provider_refresh_token"


class Account(BaseModel):
    """Every kind of encrypted column."""

    token = EncryptedTextField(null=True, unique="live")
    hint = EncryptedTextField(null=True, blind_index=True)
    profile = EncryptedJSONField(null=True)

    class Meta:
        table_name = "rotated_accounts"


@pytest.fixture(autouse=True)
def keys() -> Iterator[None]:
    use_key_ring(KeyRing.parse(OLD))
    use_index_keys(IndexKeys.parse(INDEX_OLD))
    yield
    use_key_ring(None)
    use_index_keys(None)


@pytest.fixture
def accounts(rollback_db):
    db.create_tables([Account])
    return rollback_db


def new_keys(*, allow_legacy: bool = True) -> None:
    use_key_ring(KeyRing.parse(f"{NEW},{OLD}", allow_legacy=allow_legacy))
    use_index_keys(IndexKeys.parse(f"{INDEX_NEW},{INDEX_OLD}"))


def only_new_keys() -> None:
    use_key_ring(KeyRing.parse(NEW))
    use_index_keys(IndexKeys.parse(INDEX_NEW))


def account(number: int = 0) -> Account:
    return Account.create(
        token=Secret(f"{CANARY}-{number}"),
        hint=Secret("same"),
        profile=SecretJSON({"pin": [number, CANARY]}),
    )


def raw(row: Any, *columns: str) -> tuple[Any, ...]:
    names = ", ".join(columns)
    table = type(row)._meta.table_name
    found: tuple[Any, ...] = db.execute_sql(
        f"SELECT {names} FROM {table} WHERE id = %s", [str(row.id)]
    ).fetchone()
    return found


def write_raw(row: Any, **columns: Any) -> None:
    changes = ", ".join(f"{name} = %s" for name in columns)
    table = type(row)._meta.table_name
    db.execute_sql(f"UPDATE {table} SET {changes} WHERE id = %s", [*columns.values(), str(row.id)])


def fresh(row: Any) -> Any:
    return type(row).with_deleted().where(type(row).id == row.id).get()


def legacy(text: str, iv_bytes: int = 12) -> tuple[str, str, str]:
    iv = os.urandom(iv_bytes)
    data = AESGCM(bytes.fromhex(KEY_1)).encrypt(iv, text.encode(), None)
    return data[:-16].hex(), iv.hex(), data[-16:].hex()


def make_legacy(row: Account, text: str, column: str = "token", iv_bytes: int = 12) -> None:
    parts = zip(("", "_iv", "_tag", "_index"), (*legacy(text, iv_bytes), None), strict=True)
    write_raw(row, **{f"{column}{part}": value for part, value in parts})


# -- rotate ---------------------------------------------------------------------------------


def test_every_value_is_sealed_and_indexed_with_the_first_keys(accounts):
    rows = [account(number) for number in range(7)]
    new_keys()
    report = rotate([Account], batch=3)
    assert (report.done, report.is_clean) == (21, True)
    only_new_keys()
    for number, row in enumerate(rows):
        assert fresh(row).token.reveal() == f"{CANARY}-{number}"
        assert fresh(row).hint.reveal() == "same"
        assert fresh(row).profile.reveal() == {"pin": [number, CANARY]}
        assert Account.get(Account.token == Secret(f"{CANARY}-{number}")) == row
    assert Account.select().where(Account.hint == Secret("same")).count() == 7


def test_a_second_run_finds_nothing_to_do(accounts):
    row = account()
    new_keys()
    rotate([Account])
    before = raw(row, "token", "token_iv", "hint_index", "profile_tag")
    assert rotate([Account]).done == 0
    assert raw(row, "token", "token_iv", "hint_index", "profile_tag") == before


def test_soft_deleted_rows_are_rotated_too(accounts):
    row = account()
    Account.delete().execute()
    new_keys()
    assert rotate([Account]).done == 3
    only_new_keys()
    assert fresh(row).token.reveal() == f"{CANARY}-0"


def test_times_do_not_move(accounts):
    row = account()
    before = raw(row, "created_at", "updated_at", "deleted_at")
    new_keys()
    rotate([Account])
    assert raw(row, "created_at", "updated_at", "deleted_at") == before


def test_absent_values_stay_absent(accounts):
    row = Account.create()
    new_keys()
    assert rotate([Account]).done == 0
    assert set(raw(row, "token", "token_iv", "token_index", "profile")) == {None}


def test_a_dry_run_counts_and_changes_nothing(accounts):
    row = account()
    before = raw(row, "rotated_accounts::text")
    new_keys()
    assert rotate([Account], dry_run=True).done == 3
    assert raw(row, "rotated_accounts::text") == before
    make_legacy(row, "x")
    write_raw(row, token_tag="0" * 32)
    report = rotate([Account], dry_run=True)
    assert (report.done, len(report.unreadable)) == (2, 1)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_has_a_row(accounts, batch):
    with pytest.raises(InvalidValue, match="one row or more"):
        rotate([Account], batch=batch)


@pytest.mark.parametrize("iv_bytes", [12, 16])
def test_values_of_the_node_system_are_upgraded(accounts, iv_bytes):
    row = account()
    make_legacy(row, "ya29.legacy é", iv_bytes=iv_bytes)
    assert rotate([Account]).done == 1
    use_key_ring(KeyRing.parse(OLD, allow_legacy=False))
    assert fresh(row).token.reveal() == "ya29.legacy é"
    assert Account.get(Account.token == Secret("ya29.legacy é")) == row


def test_legacy_json_is_upgraded(accounts):
    row = account()
    parts = dict(zip(("profile", "profile_iv", "profile_tag"), legacy('{"a": [1]}'), strict=True))
    write_raw(row, **parts)
    assert fresh(row).profile.reveal() == {"a": [1]}
    assert rotate([Account]).done == 1
    use_key_ring(KeyRing.parse(OLD, allow_legacy=False))
    assert fresh(row).profile.reveal() == {"a": [1]}


def test_legacy_values_are_refused_once_they_are_not_allowed(accounts):
    row = account()
    make_legacy(row, "x")
    use_key_ring(KeyRing.parse(OLD, allow_legacy=False))
    with pytest.raises(SecretUnreadable, match=str(row.id)):
        fresh(row).token.reveal()
    assert len(rotate([Account]).unreadable) == 1


def test_a_value_that_cannot_be_opened_is_told_and_left(accounts, caplog):
    caplog.set_level(logging.DEBUG)
    bad, good = account(1), account(2)
    write_raw(bad, token_tag="0" * 32)
    before = raw(bad, "token", "token_iv", "token_tag")
    new_keys()
    report = rotate([Account], batch=1)
    assert [str(place) for place in report.unreadable] == [
        f"rotated_accounts.token of row {bad.id}"
    ]
    assert (report.done, report.is_clean) == (5, False)
    assert raw(bad, "token", "token_iv", "token_tag") == before
    assert fresh(good).token.reveal() == f"{CANARY}-2"
    assert CANARY not in caplog.text


@pytest.mark.parametrize("part", ["token_iv", "token_tag"])
def test_a_value_without_a_part_is_told(accounts, part):
    row = account()
    write_raw(row, **{part: None})
    new_keys()
    assert [place.row for place in rotate([Account]).unreadable] == [str(row.id)]


def test_a_blind_index_that_a_row_lacks_is_made(accounts):
    row = account()
    write_raw(row, token_index=None)
    assert Account.get_or_none(Account.token == Secret(f"{CANARY}-0")) is None
    assert rotate([Account]).done == 1
    assert Account.get(Account.token == Secret(f"{CANARY}-0")) == row


def test_two_rows_of_one_unique_value_under_two_index_keys_are_told(accounts):
    first = account()
    new_keys()
    account()  # the unique index can't tell: the digest of the first one is by the old key
    report = rotate([Account], batch=10)
    assert [place.row for place in report.repeated] == [str(first.id)]
    assert (report.done, report.is_clean) == (2, False)
    assert {row.token.reveal() for row in Account.select()} == {f"{CANARY}-0"}


def test_a_value_written_meanwhile_wins(accounts, monkeypatch):
    from orm_core import rotation

    row = account()
    new_keys()
    write = rotation._write

    def after_a_refresh(*args: Any) -> int:
        monkeypatch.setattr(rotation, "_write", write)
        use_key_ring(KeyRing.parse(f"{OLD},{NEW}"))  # a process that was not restarted yet
        loaded = fresh(row)
        loaded.token = Secret("refreshed")
        loaded.save()
        new_keys()
        return write(*args)

    monkeypatch.setattr(rotation, "_write", after_a_refresh)
    assert rotate([Account]).is_clean
    only_new_keys()
    assert fresh(row).token.reveal() == "refreshed"


def test_rows_that_others_hold_are_told(clone_db, monkeypatch):
    monkeypatch.setattr("orm_core.rotation.LOCK_TIMEOUT", "20ms")
    db.create_tables([Account])
    held, free = account(1), account(2)
    new_keys()
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with db.atomic():
            list(Account.select().where(Account.id == held.id).for_update())
            holding.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(10)
        report = rotate([Account], batch=1)
    finally:
        release.set()
        thread.join()
    assert (report.done, report.busy, report.is_clean) == (3, 3, False)
    assert raw(free, "token_iv")[0].endswith(".k2")
    assert (rotate([Account]).done, rotate([Account]).is_clean) == (3, True)


# -- status and check -----------------------------------------------------------------------


def test_status_counts_rows_by_key(accounts):
    account(1)
    make_legacy(account(2), "x")
    new_keys()
    account(3)
    Account.delete().where(Account.token == Secret(f"{CANARY}-1")).execute()
    assert status([Account]) == [
        KeyUse("rotated_accounts", "token_iv", "k1", 1),
        KeyUse("rotated_accounts", "token_iv", "k2", 1),
        KeyUse("rotated_accounts", "token_iv", "legacy", 1),
        KeyUse("rotated_accounts", "token_index", "i1", 1),
        KeyUse("rotated_accounts", "token_index", "i2", 1),
        KeyUse("rotated_accounts", "token_index", "missing", 1),
        KeyUse("rotated_accounts", "hint_iv", "k1", 2),
        KeyUse("rotated_accounts", "hint_iv", "k2", 1),
        KeyUse("rotated_accounts", "hint_index", "i1", 2),
        KeyUse("rotated_accounts", "hint_index", "i2", 1),
        KeyUse("rotated_accounts", "profile_iv", "k1", 2),
        KeyUse("rotated_accounts", "profile_iv", "k2", 1),
    ]
    rotate([Account])
    assert {use.key for use in status([Account])} == {"k2", "i2"}


def test_check_opens_everything_and_changes_nothing(accounts):
    rows = [account(number) for number in range(5)]
    Account.delete().where(Account.id == rows[0].id).execute()
    before = [raw(row, "rotated_accounts::text") for row in rows]
    report = check([Account], batch=2)
    assert (report.done, report.is_clean) == (15, True)
    assert [raw(row, "rotated_accounts::text") for row in rows] == before


@pytest.mark.parametrize("part", ["token", "token_iv", "token_tag", "token_index", "profile"])
def test_check_finds_a_part_that_was_moved(accounts, part):
    one, other = account(1), account(2)
    Account.hard_delete().where(Account.id == other.id).execute()
    write_raw(one, **{part: other.__data__[part]})
    report = check([Account])
    assert [(place.column, place.row) for place in report.unreadable] == [
        (part.partition("_")[0], str(one.id))
    ]


# -- under load -----------------------------------------------------------------------------

THREADS = 8


@pytest.mark.parametrize("count", [1_000, pytest.param(5_000, marks=pytest.mark.slow)])
def test_no_token_is_lost_while_threads_refresh_and_the_rotation_is_killed(
    clone_db, orm_core_server, count
):
    expected = make_sessions(count)
    url = orm_core_server.url(clone_db.database)
    use_key_ring(KeyRing.parse(f"{OLD},{NEW}"))  # processes that were not restarted yet
    stop = threading.Event()
    failures: list[BaseException] = []

    def refresh(mine: list[uuid.UUID], seed: int) -> None:
        chance = random.Random(seed)
        number = 0
        try:
            while not stop.is_set():
                key, number = chance.choice(mine), number + 1
                token = f"ya29.{seed}-{number}"
                row = Session.with_deleted().where(Session.id == key).get()
                assert row.provider_access_token.reveal() == expected[key]
                SessionService.update(key, {TOKEN: Secret(token)}, include_deleted=True)
                expected[key] = token
                stop.wait(0.01)
        except BaseException as error:
            failures.append(error)

    ids = list(expected)
    threads = [
        threading.Thread(target=refresh, args=(ids[seed::THREADS], seed)) for seed in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    try:
        for share in (0.1, 0.4):
            kill_when(rotating(url), share * count)
        use_key_ring(KeyRing.parse(f"{NEW},{OLD}"))
        done = rotating(url)
        output = done.communicate(timeout=120)[0]
        assert done.returncode == 0, output
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    rotate([Session])  # what the threads wrote with the old key at the last moment
    use_key_ring(KeyRing.parse(NEW))
    rows = list(Session.with_deleted())
    assert {row.id: row.provider_access_token.reveal() for row in rows} == expected
    assert {row.provider_refresh_token.reveal() for row in rows} == {"refresh"}
    assert {use.key for use in status([Session])} == {"k2"}


def make_sessions(count: int) -> dict[uuid.UUID, str]:
    """Sessions of all kinds: live, soft-deleted, written by the earlier system."""
    user = User.create(email="a@b.c", first_name="a", provider_account_id="a")
    now = utcnow()
    rows = [
        {
            "id": uuid.uuid4(),
            "user": user,
            "provider": SessionProvider.GOOGLE,
            "provider_account_id": "g",
            "expires_at": now + timedelta(hours=1),
            "deleted_at": now if number % 10 == 0 else None,
            TOKEN: Secret(f"ya29.{number}"),
            REFRESH: Secret("refresh"),
        }
        for number in range(count)
    ]
    with db.atomic():
        for start in range(0, count, 1000):
            Session.insert_many(rows[start : start + 1000]).execute()
        for number in range(0, count, 25):
            parts = zip(
                (TOKEN, f"{TOKEN}_iv", f"{TOKEN}_tag"), legacy(f"ya29.{number}"), strict=True
            )
            write_raw(Session(id=rows[number]["id"]), **dict(parts))
    return {row["id"]: f"ya29.{number}" for number, row in enumerate(rows)}


def rotating(url: str) -> subprocess.Popen[str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith("ORM_CORE_")}
    return subprocess.Popen(
        [Path(sys.executable).with_name("orm-core"), "keys", "rotate", "--batch", "50"],
        cwd=TOP,
        env=given | {"DATABASE_URL": url, "ORM_CORE_TOKEN_KEYS": f"{NEW},{OLD}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_when(process: subprocess.Popen[str], rows: float) -> None:
    """Kill the rotation when so many rows are done."""
    deadline = time.monotonic() + 60
    sql = f"SELECT count(*) FROM sessions WHERE {TOKEN}_iv LIKE %s"
    while db.execute_sql(sql, ("%.k2",)).fetchone()[0] < rows:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
