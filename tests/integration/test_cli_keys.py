"""``orm-core keys``: what it prints, and that it prints no key and no value."""

from typing import Any

import pytest
from click.testing import CliRunner, Result

from domains.users import SessionService, User
from orm_core import IndexKeys, KeyRing, Secret, db, initialize_db, use_key_ring, utcnow
from orm_core.cli import main

CANARY = "canary-ya29.a0AfH6"
OLD, NEW = KeyRing.generate("k1"), KeyRing.generate("k2")


@pytest.fixture
def url(clone_db, orm_core_server, monkeypatch):
    """The URL of a database with three sessions under the key k1, one of them soft-deleted."""
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", OLD)
    use_key_ring(None)
    user = User.create(email="a@b.c", first_name="a", provider_account_id="a")
    rows = [
        SessionService.create(
            {
                "user_id": user.id,
                "provider": "google",
                "provider_account_id": "g",
                "provider_access_token": Secret(f"{CANARY}-{number}"),
                "expires_at": utcnow(),
            }
        )
        for number in range(3)
    ]
    SessionService.soft_delete(rows[0].id)
    yield orm_core_server.url(clone_db.database)
    use_key_ring(None)
    db.close_all()


def run(*arguments: str) -> Result:
    use_key_ring(None)  # as in a process of its own
    result = CliRunner().invoke(main, ["keys", *arguments])
    hidden = [CANARY, CANARY.encode().hex(), *(key.partition(":")[2] for key in (OLD, NEW))]
    assert not [secret for secret in hidden if secret in result.output]
    return result


def ids_and_ivs(url: str) -> list[Any]:
    sql = "SELECT id, provider_access_token_iv, updated_at FROM sessions ORDER BY id"
    return list(initialize_db(url).execute_sql(sql).fetchall())


def test_a_generated_key_is_an_entry_of_its_own():
    assert list(KeyRing.parse(run("generate").stdout)) == ["k1"]
    assert list(KeyRing.parse(run("generate", "--id", "2026-11").stdout)) == ["2026-11"]
    assert list(IndexKeys.parse(run("generate", "--index").stdout)) == ["i1"]
    assert run("generate").stdout != run("generate").stdout


def test_a_bad_id_is_refused():
    result = run("generate", "--id", "much too long")
    assert (result.exit_code, "1 to 7 letters" in result.output) == (1, True)


def test_a_key_is_changed_step_by_step(url, monkeypatch):
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", f"{NEW},{OLD}")
    before = ids_and_ivs(url)
    dry = run("rotate", "--dry-run", "--url", url)
    assert (dry.exit_code, dry.stdout) == (0, "3 value(s) would be encrypted anew.\n")
    assert ids_and_ivs(url) == before
    assert run("status", "--url", url).stdout.split() == [
        "sessions.provider_access_token_iv",
        "k1",
        "3",
    ]
    done = run("rotate", "--batch", "2", "--url", url)
    assert (done.exit_code, done.stdout) == (0, "3 value(s) encrypted anew.\n")
    assert run("status", "--url", url).stdout.split()[1:] == ["k2", "3"]
    after = ids_and_ivs(url)
    assert [(row[0], row[2]) for row in after] == [(row[0], row[2]) for row in before]
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", NEW)
    checked = run("check", "--url", url)
    assert (checked.exit_code, checked.stdout) == (0, "3 value(s) opened.\n")


@pytest.mark.parametrize("command", ["check", "rotate"])
def test_a_value_that_cannot_be_opened_is_told_by_its_id(url, monkeypatch, command):
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", f"{NEW},{OLD}")
    bad = ids_and_ivs(url)[1][0]
    sql = "UPDATE sessions SET provider_access_token_tag = repeat('0', 32) WHERE id = %s"
    db.execute_sql(sql, (str(bad),))
    result = run(command, "--url", url)
    assert result.exit_code == 1
    assert result.stderr == f"sessions.provider_access_token of row {bad} can't be opened.\n"
    assert result.stdout.startswith("2 value(s)")


def test_without_keys_it_says_what_to_set(url, monkeypatch, tmp_path):
    monkeypatch.delenv("ORM_CORE_TOKEN_KEYS")
    result = run("rotate", "--url", url)
    assert result.exit_code == 1
    assert "ORM_CORE_TOKEN_KEYS" in result.output


def test_a_batch_of_nothing_is_refused(url):
    result = run("rotate", "--batch", "0", "--url", url)
    assert (result.exit_code, "one row or more" in result.output) == (1, True)
