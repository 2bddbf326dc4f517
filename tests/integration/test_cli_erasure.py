"""``orm-core erase`` and ``orm-core purge``: what they show, ask, do and refuse."""

from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orm_core import (
    BaseModel,
    EncryptedTextField,
    ForeignKeyField,
    KeyRing,
    Secret,
    SecretErased,
    TextField,
    initialize_db,
    registry,
    use_key_ring,
    utcnow,
)
from orm_core.cli import main
from orm_core.domain import Domain
from orm_core.models.data_keys import DataKey
from orm_core.models.schema import create_all

CANARY = "canary-ya29.a0AfH6"
RING = KeyRing.generate()
MISSING = "018f5b1e-0000-7000-8000-000000000000"


class Guest(BaseModel):
    """Owns the secrets of its stays."""

    name = TextField()

    class Meta:
        table_name = "cli_guests"


class Stay(BaseModel):
    """Of a guest."""

    guest = ForeignKeyField(Guest)
    door_code = EncryptedTextField(owner="guest")

    class Meta:
        table_name = "cli_stays"


domain = Domain("hotel", models=(Guest, Stay), retention=timedelta(days=90))


@pytest.fixture
def url(clone_db: Any, orm_core_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The URL of a database with a guest who has two stays, and a registry with the domain."""
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", RING)
    monkeypatch.setattr(registry, "_domains", {})
    registry.register(domain)
    use_key_ring(None)
    create_all(clone_db, (DataKey, *domain.models))
    guest = Guest.create(name=CANARY)
    for _ in range(2):
        Stay.create(guest=guest, door_code=Secret(CANARY))
    yield orm_core_server.url(clone_db.database)
    use_key_ring(None)


def run(*arguments: str, answer: str | None = None) -> Result:
    use_key_ring(None)  # as in a process of its own
    result = CliRunner().invoke(main, arguments, input=answer)
    hidden = [CANARY, CANARY.encode().hex(), RING.partition(":")[2]]
    assert not [secret for secret in hidden if secret in result.output]
    return result


def guest(url: str) -> str:
    initialize_db(url)
    return str(Guest.with_deleted().get().id)


def is_readable(url: str) -> bool:
    initialize_db(url)
    try:
        return Stay.select()[0].door_code.reveal() == CANARY
    except SecretErased:
        return False


# -- erase ----------------------------------------------------------------------------------


def test_erase_shows_what_becomes_unreadable_and_asks(url):
    owner = guest(url)
    shown = f"cli_stays.door_code           2\n2 secret(s) of cli_guests {owner} can be read.\n"
    dry = run("erase", "cli_guests", owner, "--dry-run", "--url", url)
    assert (dry.exit_code, dry.stdout) == (0, shown)
    refused = run("erase", "cli_guests", owner, "--url", url, answer="n\n")
    assert (refused.exit_code, refused.stdout.startswith(shown)) == (1, True)
    assert is_readable(url)
    done = run("erase", "cli_guests", owner, "--url", url, answer="y\n")
    assert done.exit_code == 0
    assert done.stdout.endswith(f"The data key of cli_guests {owner} is erased.\n")
    assert not is_readable(url)


def test_erase_with_yes_does_not_ask_and_tells_that_it_was_done_before(url):
    owner = guest(url)
    assert run("erase", "cli_guests", owner, "--yes", "--url", url).exit_code == 0
    assert not is_readable(url)
    again = run("erase", "cli_guests", owner, "--url", url)
    assert again.exit_code == 0
    assert "was erased at " in again.stdout
    assert "is erased" not in again.stdout
    keys = run("keys", "check", "--url", url)
    assert (keys.exit_code, keys.stdout) == (
        0,
        "0 value(s) opened.\n2 value(s) were erased, see orm-core erase.\n",
    )


@pytest.mark.parametrize(
    ("table", "row", "code", "words"),
    [
        ("cli_stays", MISSING, 2, "Tables whose rows do: cli_guests."),
        ("nowhere", MISSING, 2, "Rows of nowhere own no secrets"),
        ("cli_guests", MISSING, 1, "No row of cli_guests"),
        ("cli_guests", "ada", 1, "must be a UUID"),
    ],
)
def test_erase_refuses_what_it_can_not_erase(url, table, row, code, words):
    result = run("erase", table, row, "--yes", "--url", url)
    assert (result.exit_code, words in " ".join(result.output.split())) == (code, True)
    assert is_readable(url)


# -- purge ----------------------------------------------------------------------------------


def delete(url: str, days: int) -> None:
    initialize_db(url)
    moment = utcnow() - timedelta(days=days)
    for model in (Guest, Stay):
        model.update(deleted_at=moment).execute()


def test_purge_removes_what_is_past_the_retention(url):
    delete(url, 91)
    dry = run("purge", "--dry-run", "--url", url)
    assert (dry.exit_code, dry.stdout) == (
        0,
        "cli_stays: 2 row(s) would be removed.\ncli_guests: 1 row(s) would be removed.\n",
    )
    done = run("purge", "hotel", "--batch", "1", "--url", url)
    assert (done.exit_code, done.stdout) == (
        0,
        "cli_stays: 2 row(s) removed.\ncli_guests: 1 row(s) removed.\n",
    )
    initialize_db(url)
    assert [model.with_deleted().count() for model in (Guest, Stay, DataKey)] == [0, 0, 0]


def test_purge_tells_what_is_kept(url):
    delete(url, 91)
    initialize_db(url)
    Stay.restore().where(Stay.id == Stay.only_deleted().get().id).execute()
    result = run("purge", "--url", url)
    assert "cli_guests: 1 row(s) kept: cli_stays.guest_id refers to them.\n" in result.stdout


def test_purge_by_another_age(url):
    delete(url, 2)
    assert "cli_guests: 0 row(s) removed." in run("purge", "--url", url).stdout
    older = run("purge", "--older-than", "1d", "--url", url)
    assert "cli_guests: 1 row(s) removed." in older.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--older-than", "90"], 2, "as in 90d"),
        (["nowhere"], 1, "No domain 'nowhere' is registered"),
        (["--batch", "0"], 1, "one row or more"),
        (["users"], 2, "users: no retention"),
    ],
)
def test_purge_refuses_what_makes_no_sense(url, arguments, code, words):
    result = run("purge", *arguments, "--url", url)
    assert (result.exit_code, words in " ".join(result.output.split())) == (code, True)


def test_purge_without_any_retention_says_so(url, monkeypatch):
    monkeypatch.setattr(registry, "_domains", {})
    assert run("purge", "--url", url).stdout == "No domain has a retention: nothing to purge.\n"
