"""Planting rows: the same for the same seed, references right, through the services."""

import itertools

import pytest
from click.testing import CliRunner
from service_helpers import empty_databases
from studio_helpers import ROOT, Piece, everything, words

from domains.orders import Order
from domains.users import Session, User
from orm_core import (
    BaseModel,
    Domain,
    ForeignKeyField,
    InvalidValue,
    NotFound,
    OtherField,
    Registry,
    Secret,
    Service,
    initialize_db,
    use_key_ring,
)
from orm_core.cli import main
from orm_core.models.schema import create_all
from orm_core.studio.seed import plant

_seed = itertools.count(100)


def rows(model, *fields):
    return list(model.with_deleted().select(*fields).order_by(model.id).tuples())


def test_the_same_seed_plants_the_same_rows(studio_db, orm_core_server):
    planted = []
    with empty_databases(orm_core_server) as make:
        for _ in range(2):
            database = initialize_db(make())
            create_all(database, everything.models)
            counts = {"studio_pieces": 30, "orders": 40, "studio_artists": 5, "users": 10}
            assert plant(everything, counts, seed=7) == counts
            planted.append([list(model.with_deleted().order_by(model.id).dicts())
                            for model in (User, Order, Piece)])  # fmt: skip
            database.close_all()
    assert planted[0] == planted[1]
    users, orders, pieces = planted[0]
    assert {order["user"] for order in orders} <= {user["id"] for user in users}
    assert len({piece["code"] for piece in pieces}) == 30


def test_another_seed_plants_other_rows_beside_them(studio_db):
    one, other = next(_seed), next(_seed)
    plant(everything, {"users": 20}, one)
    plant(everything, {"users": 20}, other)
    emails = {email for (email,) in rows(User, User.email)}
    assert len(emails) >= 40


def test_a_seed_that_was_planted_before_is_refused(studio_db):
    number = next(_seed)
    plant(everything, {"users": 3}, number)
    with pytest.raises(InvalidValue, match=f"seed {number} already"):
        plant(everything, {"users": 3}, number)


def test_values_fit_the_names_and_kinds_of_columns(studio_db):
    plant(everything, {"users": 300, "sessions": 50}, next(_seed))
    users = User.with_deleted().order_by(User.id)
    assert all("@example.com" in user.email for user in users)
    assert {user.last_name is None for user in users} == {True, False}
    assert 0 < User.only_deleted().count() < User.select().count()
    session = Session.select().get()
    assert session.user.created_at.tzinfo is not None
    assert isinstance(session.provider_access_token, Secret)
    assert session.provider_access_token.reveal().startswith("seed-")


def test_parents_come_before_what_refers_to_them(studio_db):
    counts = {"orders": 3, "sessions": 3, "users": 2}
    planted = plant(everything, counts, next(_seed))
    assert planted == counts
    assert next(iter(planted)) == "users"


def test_a_table_whose_parents_have_no_rows_says_which(studio_db, orm_core_server):
    with empty_databases(orm_core_server) as make:
        database = initialize_db(make())
        create_all(database, everything.models)
        with pytest.raises(InvalidValue, match="needs rows of users"):
            plant(everything, {"orders": 3}, 1)
        database.close_all()


@pytest.mark.parametrize("count", [-1, True, 1.5, "3"])
def test_a_count_must_be_a_whole_number(studio_db, count):
    with pytest.raises(InvalidValue, match="whole number"):
        plant(everything, {"users": count}, 1)


def test_an_unknown_table_is_refused(studio_db):
    with pytest.raises(NotFound):
        plant(everything, {"nope": 1}, 1)


def test_a_table_without_a_service_is_refused(studio_db):
    with pytest.raises(InvalidValue, match="no service for studio_stamps"):
        plant(everything, {"studio_stamps": 1}, 1)


class Owner(BaseModel):
    class Meta:
        table_name = "studio_owners"


class Passport(BaseModel):
    owner = ForeignKeyField(Owner, unique=True)

    class Meta:
        table_name = "studio_passports"


class Address(BaseModel):
    ip = OtherField("inet")

    class Meta:
        table_name = "studio_addresses"


class OwnersService(Service[Owner]):
    """Owners."""


class PassportsService(Service[Passport]):
    """Passports."""


class AddressesService(Service[Address]):
    """Addresses."""


def test_a_unique_reference_leads_to_each_row_once(studio_db, orm_core_server):
    registry = Registry()
    models = (Owner, Passport, Address)
    registry.register(Domain("travel", models, (OwnersService, PassportsService, AddressesService)))
    with empty_databases(orm_core_server) as make:
        database = initialize_db(make())
        create_all(database, models)
        assert plant(registry, {"studio_owners": 5, "studio_passports": 5}, 1)
        assert len({passport.owner_id for passport in Passport.with_deleted()}) == 5
        with pytest.raises(InvalidValue, match="is unique"):
            plant(registry, {"studio_passports": 6}, 2)
        with pytest.raises(InvalidValue, match=r"Address.ip is of a type"):
            plant(registry, {"studio_addresses": 1}, 1)
        database.close_all()


# -- in the studio and on the command line ------------------------------------------------------------


def test_the_studio_plants_rows_too(edit):
    number = next(_seed)
    page = edit.post("/-/seed", {"count.users": "5", "count.orders": "", "seed": f"{number}"})
    assert page.status_code == 303, words(page)
    assert "5 users planted." in words(edit.get("/"))
    page = edit.post("/-/seed", {"count.users": "5", "seed": f"{number}"})
    assert page.status_code == 400
    assert "already" in words(page)


@pytest.mark.parametrize("count", ["many", "5001", "-1"])
def test_the_studio_plants_a_sensible_number_of_rows(edit, count):
    page = edit.post("/-/seed", {"count.users": count})
    assert page.status_code == 400
    assert f'value="{count}"' in page.get_data(as_text=True)


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """As in a service's folder, with no settings around."""
    from orm_core.settings import VARIABLES

    for _, variable, _ in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(ROOT)
    use_key_ring(None)


def test_the_command_plants_and_counts(shell, clone_db, orm_core_server):
    url = orm_core_server.url(clone_db.database)
    result = CliRunner().invoke(main, ["seed", "users=30", "orders=1_000", "--url", url])
    assert result.exit_code == 0, result.output
    assert "1,000  orders" in result.output
    initialize_db(url)
    assert (User.with_deleted().count(), Order.with_deleted().count()) == (30, 1000)
    result = CliRunner().invoke(main, ["seed", "users=1", "--url", url])
    assert result.exit_code == 1
    assert "use another --seed" in result.output


@pytest.mark.parametrize("given", ["users", "users=many", "=5", "users=-1"])
def test_the_command_explains_its_form(shell, given):
    result = CliRunner().invoke(main, ["seed", "--", given])
    assert result.exit_code == 2
    assert "is not of the form users=1000" in result.output


def test_the_command_leaves_a_remote_database_alone(shell):
    result = CliRunner().invoke(main, ["seed", "users=1", "--url", "postgresql://db.example.com/x"])
    assert result.exit_code == 1
    assert "--yes-remote" in result.output
