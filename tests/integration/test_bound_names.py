"""Renames of what secrets are bound to: refused, and what there is in their place."""

import pytest
from migration_scenarios import model
from migration_tools import given, migrations

from orm_core import (
    BaseModel,
    EncryptedTextField,
    ForeignKeyField,
    MigrationError,
    TextField,
)

__all__ = ["given"]  # a fixture


def vault(table="vaults", schema=None, **columns):
    meta = {"schema": schema} if schema else None
    return model(table, BaseModel, meta, name=TextField(), **columns)


def owned(table):
    owner = vault(table)
    foreign = ForeignKeyField(owner, column_name="owner_id")
    return owner, vault("codes", owner=foreign, code=EncryptedTextField(owner="owner"))


PARTS = ("", "_iv", "_tag", "_index")

REFUSED = {
    "a column": (
        [vault(code=EncryptedTextField(blind_index=True))],
        [vault(pin=EncryptedTextField(blind_index=True))],
        [f"vaults.code{part}:pin{part}" for part in PARTS],
    ),
    "a table": (
        [vault(code=EncryptedTextField())],
        [vault("safes", code=EncryptedTextField())],
        ["vaults:safes"],
    ),
    "the table of the owners": (owned("guests"), owned("people"), ["guests:people"]),
}


@pytest.mark.parametrize("safe", [False, True], ids=["at once", "in stages"])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_rename_that_would_make_secrets_unreadable_is_refused(case, safe, given, tmp_path):
    before, after, renames = case
    migrations(given, tmp_path, before).generate("one")
    with pytest.raises(MigrationError, match=r"unreadable.*Keep the name in the database"):
        migrations(given, tmp_path, after).generate("two", renames=renames, safe=safe)
    assert len(list(tmp_path.glob("*.py"))) == 1


def test_a_secret_can_be_called_otherwise_in_python_alone(given, tmp_path):
    migrations(given, tmp_path, [vault(code=EncryptedTextField())]).generate()
    after = [vault(pin=EncryptedTextField(column_name="code"))]
    assert migrations(given, tmp_path, after).generate() == []


def test_what_no_secret_is_bound_to_is_renamed(given, tmp_path):
    before = [vault(code=EncryptedTextField(), mail=TextField())]
    after = [vault(schema="bank", code=EncryptedTextField(), email=TextField())]
    migrations(given, tmp_path, before).generate()
    renames = ["vaults:bank.vaults", "vaults.mail:email"]
    assert len(migrations(given, tmp_path, after).generate(renames=renames)) == 1
