"""``VersionField``: of two writers of the same row one wins and the other is told."""

import copy
import pickle
import threading
import uuid
from typing import Any

import peewee
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import no_statement

from orm_core import (
    BaseModel,
    Domain,
    EncryptedTextField,
    ForeignKeyField,
    IntegerField,
    InvalidValue,
    KeyRing,
    MissingField,
    NotFound,
    Registry,
    RegistryError,
    Secret,
    Service,
    StaleRow,
    TextField,
    VersionField,
    compiled,
    db,
    parameter,
    to_pydantic,
    transaction,
    use_key_ring,
)
from orm_core.models.schema import create_all
from orm_core.rotation import rotate
from orm_core.studio.edits import Conflict, Editor, writable
from orm_core.studio.seed import plant
from orm_core.studio.tables import Tables


class Account(BaseModel):
    """A natural key, a secret and a column that only the driver can write."""

    name = TextField(unique="live")
    amount = IntegerField(default=0)
    token = EncryptedTextField(null=True)
    blob: Any = peewee.BlobField(null=True)
    version = VersionField()

    class Meta:
        table_name = "locked_accounts"


class Entry(BaseModel):
    """Goes with its account; its version has a name of its own."""

    account = ForeignKeyField(Account, backref="entries", on_soft_delete="cascade")
    text = TextField()
    counter = VersionField(column_name="changes")

    class Meta:
        table_name = "locked_entries"


class AccountsService(Service[Account]):
    """Accounts."""


class EntriesService(Service[Entry]):
    """Entries."""


MODELS = (Account, Entry)


@pytest.fixture
def tables(rollback_db):
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    create_all(rollback_db, MODELS)
    yield rollback_db
    use_key_ring(None)


@pytest.fixture
def account(tables):
    return AccountsService.create({"name": "one"})


def stored(row):
    return type(row).with_deleted().where(type(row).id == row.id).get()


def changed_meanwhile(row):
    type(row).update(updated_at=row.updated_at).where(type(row).id == row.id).execute()
    return stored(row)


# -- the column -------------------------------------------------------------------------------


def test_a_new_row_has_version_one_whoever_makes_it(tables):
    assert AccountsService.create({"name": "a"}).version == 1
    assert Account.create(name="b").version == 1
    assert [one.version for one in AccountsService.create_many([{"name": "c"}])] == [1]
    tables.execute_sql("INSERT INTO locked_accounts (name) VALUES ('d')")
    assert Account.get(Account.name == "d").version == 1


def test_a_model_has_one_version():
    with pytest.raises(RegistryError, match="two VersionFields"):

        class Twice(BaseModel):
            one = VersionField()
            two = VersionField()


def test_a_subclass_counts_its_own_version():
    class Special(Account):
        class Meta:
            table_name = "locked_specials"

    assert Special._meta.version is Special.version
    assert Special._meta.version is not Account._meta.version


# -- rows -------------------------------------------------------------------------------------


def test_save_counts_on_and_the_instance_goes_on_from_there(account):
    for expected in (2, 3, 4):
        account.amount += 1
        account.save()
        assert (account.version, stored(account).version) == (expected, expected)
    assert stored(account).amount == 3


def test_save_of_a_stale_row_is_refused_and_changes_nothing(account):
    mine, theirs = stored(account), stored(account)
    theirs.amount = 5
    theirs.save()
    mine.amount = 7
    with pytest.raises(StaleRow) as caught:
        mine.save()
    error = caught.value
    assert (error.table, error.id, error.expected, error.found) == (
        "locked_accounts",
        account.id,
        1,
        2,
    )
    assert str(account.id) in str(error)
    assert "7" not in str(error).replace(str(account.id), "")
    assert stored(account).amount == 5
    assert mine.version == 1
    fresh = stored(account)
    fresh.amount += 7
    fresh.save()
    assert (stored(account).amount, fresh.version) == (12, 3)


def test_save_of_a_secret_compares_too(account):
    stale = stored(account)
    account.token = Secret("first")
    account.save()
    stale.token = Secret("second")
    with pytest.raises(StaleRow):
        stale.save()
    assert stored(account).token.reveal() == "first"


def test_a_row_that_is_gone_is_not_stale(account):
    mine = stored(account)
    AccountsService.soft_delete(account.id)
    mine.amount = 1
    with pytest.raises(NotFound):
        mine.save()
    Account.hard_delete().execute()
    with pytest.raises(NotFound):
        mine.save()
    assert AccountsService.update(account.id, {"amount": 1, "version": 1}) is None


def test_a_row_read_without_its_version_is_not_written(account):
    part = Account.select(Account.id, Account.amount).get()
    part.amount = 3
    with no_statement(), pytest.raises(InvalidValue, match="read without its version"):
        part.save()
    with no_statement(), pytest.raises(InvalidValue, match="read without its version"):
        part.hard_delete_instance()


def test_nobody_sets_a_version_by_hand(account):
    account.version = 9
    with no_statement(), pytest.raises(InvalidValue, match="counted by the server"):
        account.save()
    with no_statement(), pytest.raises(InvalidValue, match="counted by the server"):
        Account.update(version=9).execute()
    with no_statement(), pytest.raises(InvalidValue, match="counted by the server"):
        AccountsService.upsert({"name": "one", "version": 9})
    with no_statement(), pytest.raises(InvalidValue, match="counted by the server"):
        AccountsService.upsert_many([{"name": "one", "version": 9}])
    with no_statement(), pytest.raises(InvalidValue, match="counted by the server"):
        Account.insert(name="one").on_conflict(
            conflict_target=[Account.name], preserve=[Account.version]
        ).execute()


def test_a_new_row_may_bring_its_version(account):
    copied = AccountsService.create({"name": "copied", "version": 7})
    assert AccountsService.update(copied.id, {"amount": 1, "version": 7}).version == 8


@pytest.mark.parametrize("write", ["delete_instance", "hard_delete_instance"])
def test_a_stale_row_is_not_deleted(account, write):
    entry = EntriesService.create({"account": account, "text": "kept"})
    stale = stored(account)
    changed_meanwhile(account)
    with pytest.raises(StaleRow):
        getattr(stale, write)(*([True] if write == "delete_instance" else []))
    assert not stored(account).is_deleted
    assert not stored(entry).is_deleted


def test_deleting_and_restoring_a_row_count_on_with_what_cascades(account):
    entry = EntriesService.create({"account": account, "text": "goes along"})
    assert account.delete_instance() == 1
    assert (account.version, stored(account).version, stored(entry).counter) == (2, 2, 2)
    stale = copy.copy(account)
    stale.__data__ = {**account.__data__, "version": 1}
    with pytest.raises(StaleRow):
        stale.restore_instance()
    assert account.restore_instance() == 1
    assert (account.version, stored(entry).counter) == (3, 3)
    assert account.delete_instance() == 1
    assert account.delete_instance() == 0
    entry.hard_delete().execute()
    assert account.hard_delete_instance() == 1


def test_bulk_update_of_instances_is_all_or_none(account):
    other = AccountsService.create({"name": "other"})
    mine = [stored(account), stored(other)]
    changed_meanwhile(other)
    for row in mine:
        row.amount = 8
    with pytest.raises(StaleRow):
        Account.bulk_update(mine, [Account.amount])
    assert [stored(account).amount, stored(other).amount] == [0, 0]
    assert mine[0].version == 1
    mine[1].version = 2
    mine[1]._dirty.discard("version")
    assert Account.bulk_update(mine, ["amount"]) == 2
    assert [row.version for row in mine] == [2, 3]
    assert [stored(account).amount, stored(other).amount] == [8, 8]


# -- services ---------------------------------------------------------------------------------


def test_update_takes_the_version_that_was_read(account):
    row = AccountsService.update(account.id, {"amount": 1, "version": 1})
    assert (row.amount, row.version) == (1, 2)
    with pytest.raises(StaleRow, match="it has version 2, expected was 1"):
        AccountsService.update(account.id, {"amount": 2, "version": 1})
    with pytest.raises(StaleRow):
        AccountsService.update(account.id, {"amount": 2, "version": 3})
    assert (stored(account).amount, stored(account).version) == (1, 2)
    row = AccountsService.update(account.id, {"token": Secret("x"), "version": 2})
    assert (row.token.reveal(), row.version) == ("x", 3)


def test_update_without_a_version_is_refused_before_any_sql(account):
    with no_statement(), pytest.raises(MissingField, match="update needs version"):
        AccountsService.update(account.id, {"amount": 1})
    with no_statement(), pytest.raises(MissingField, match="update_many needs version"):
        AccountsService.update_many([{"id": account.id, "amount": 1}])
    with no_statement(), pytest.raises(InvalidValue, match="empty"):
        AccountsService.update(account.id, {"version": 1})
    with no_statement(), pytest.raises(InvalidValue, match="must be an int"):
        AccountsService.update(account.id, {"amount": 1, "version": "1"})
    with no_statement(), pytest.raises(InvalidValue, match="may not be None"):
        AccountsService.update(account.id, {"amount": 1, "version": None})


def test_update_of_a_deleted_row_goes_by_its_version_too(account):
    AccountsService.soft_delete(account.id)
    payload = {"amount": 1, "version": 1}
    assert AccountsService.update(account.id, payload) is None
    with pytest.raises(StaleRow):
        AccountsService.update(account.id, payload, include_deleted=True)
    row = AccountsService.update(account.id, {**payload, "version": 2}, include_deleted=True)
    assert row.version == 3


@pytest.mark.parametrize("value", [{"amount": 1}, {"blob": b"\x00"}], ids=["text", "driver"])
def test_update_many_holds_for_all_rows_or_none(account, value):
    other = AccountsService.create({"name": "other"})
    one, two = ({"id": row.id, "version": 1, **value} for row in (account, other))
    missing = {"id": uuid.uuid4(), "version": 1, **value}
    rows = AccountsService.update_many([one, missing, two])
    assert [row.version for row in rows] == [2, 2]
    with pytest.raises(StaleRow) as caught:
        AccountsService.update_many([{**one, "version": 2}, two])
    assert caught.value.id == other.id
    assert [stored(account).version, stored(other).version] == [2, 2]
    with pytest.raises(StaleRow):  # of two sets of fields the first is undone
        AccountsService.update_many(
            [{**one, "version": 2}, {"id": other.id, "name": "x", "version": 1}]
        )
    assert [stored(account).version, stored(other).version] == [2, 2]


def test_update_where_counts_on_and_may_name_a_version(account):
    assert AccountsService.update_where({"name": "one"}, {"amount": 1}) == 1
    assert stored(account).version == 2
    assert AccountsService.update_where(None, {"amount": 2, "version": 1}) == 0
    assert AccountsService.update_where(None, {"amount": 2, "version": 2}) == 1
    assert (stored(account).amount, stored(account).version) == (2, 3)


def test_soft_delete_and_restore_by_id_need_no_version(account):
    entry = EntriesService.create({"account": account, "text": "goes along"})
    assert AccountsService.soft_delete(account.id).version == 2
    assert AccountsService.restore(account.id).version == 3
    assert stored(entry).counter == 3
    with pytest.raises(StaleRow):
        EntriesService.update(entry.id, {"text": "late", "counter": 1})
    assert EntriesService.update(entry.id, {"text": "now", "counter": 3}).counter == 4


def test_upsert_takes_what_is_there_and_counts_on(account):
    assert AccountsService.upsert({"name": "one", "amount": 4}).version == 2
    assert AccountsService.upsert({"name": "one", "token": Secret("t")}).version == 3
    rows = AccountsService.upsert_many([{"name": "one", "amount": 5}, {"name": "new"}])
    assert [row.version for row in rows] == [4, 1]
    Account.insert(name="one", amount=6).on_conflict(
        conflict_target=[Account.name],
        conflict_where=Account.deleted_at.is_null(),
        update={Account.amount: 6},
    ).execute()
    assert (stored(account).amount, stored(account).version) == (6, 5)
    account.amount = 0
    with pytest.raises(StaleRow):
        account.save()


def test_queries_by_hand_and_compiled_ones_count_on(account):
    query = Account.update(amount=Account.amount + 1).where(Account.id == account.id)
    query.execute()
    assert [row.version for row in query.returning(Account).execute()] == [3]
    change = compiled(Account.update(amount=parameter("amount")).where(Account.name == "one"))
    assert change(amount=9) == 1
    assert change(amount=10) == 1
    assert (stored(account).amount, stored(account).version) == (10, 5)


def test_a_stale_write_leaves_the_transaction_usable(account):
    changed_meanwhile(account)
    with transaction() as tx:
        with pytest.raises(StaleRow):
            AccountsService.update(account.id, {"amount": 1, "version": 1}, tx=tx)
        AccountsService.update(account.id, {"amount": 2, "version": 2}, tx=tx)
    assert stored(account).amount == 2


def test_the_error_survives_pickling():
    error = StaleRow("accounts", 7, 1, 2)
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


def test_a_body_of_an_update_must_have_the_version_and_that_of_a_new_row_none():
    assert to_pydantic(Account, "update").model_fields["version"].is_required()
    assert "version" not in to_pydantic(Account, "new").model_fields
    assert "version" in to_pydantic(Account).model_fields


def test_rotating_keys_makes_no_row_stale(account):
    old, new = KeyRing.generate("k1"), KeyRing.generate("k2")
    use_key_ring(KeyRing.parse(old))
    account.token = Secret("t")
    account.save()
    use_key_ring(KeyRing.parse(f"{new},{old}"))
    rotate([Account])
    assert stored(account).token_iv.endswith(".k2")
    assert stored(account).version == account.version == 2


def test_the_studio_goes_by_the_version_too(account):
    registry = Registry()
    registry.register(Domain("locked", models=MODELS, services=(AccountsService, EntriesService)))
    table, editor = Tables(registry)["locked_accounts"], Editor()
    assert "version" not in {column.name for column in writable(table)}
    assert editor.update(table, account.id, "1", {"value.amount": "3"}) == ["amount"]
    with pytest.raises(StaleRow, match="it has version 2, expected was 1"):
        editor.update(table, account.id, "1", {"value.amount": "4"})
    with pytest.raises(Conflict):
        editor.update(table, account.id, "anything", {"value.amount": "4"})
    editor.undo()
    assert (stored(account).amount, stored(account).version) == (0, 3)
    plant(registry, {"locked_entries": 3})
    assert [row.counter for row in Entry.select()] == [1, 1, 1]


# -- at the same time -------------------------------------------------------------------------


def _add_by_save(key, share):
    row = Account.get_by_id(key)
    row.amount += share
    row.save()


def _add_by_update(key, share):
    row = AccountsService.get(key)
    AccountsService.update(key, {"amount": row.amount + share, "version": row.version})


def _add_by_update_many(key, share):
    row = AccountsService.get(key)
    changes = {"id": key, "amount": row.amount + share, "version": row.version}
    AccountsService.update_many([changes])


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    work=st.lists(
        st.tuples(
            st.sampled_from([_add_by_save, _add_by_update, _add_by_update_many]),
            st.lists(st.integers(1, 99), min_size=1, max_size=4),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_no_update_is_lost_between_threads_that_try_again(clone_db, work):
    if not db.table_exists("locked_accounts"):
        create_all(clone_db, MODELS)
    key = AccountsService.create({"name": uuid.uuid4().hex}).id
    ready, failures = threading.Barrier(len(work)), []

    def run(add, shares):
        try:
            ready.wait(30)
            for share in shares:
                while True:
                    try:
                        add(key, share)
                    except StaleRow:
                        continue
                    break
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    row = AccountsService.get(key)
    assert row.amount == sum(sum(shares) for _, shares in work)
    assert row.version == 1 + sum(len(shares) for _, shares in work)
