"""Related rows: one query for each relation, and afterwards none."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import JOIN, PREFETCH_TYPE, Load
from service_helpers import no_statement, statements

from orm_core import (
    BaseModel,
    ForeignKeyField,
    IntegerField,
    InvalidValue,
    NotFound,
    TextField,
    db,
)


class City(BaseModel):
    code = TextField(unique=True)

    class Meta:
        table_name = "related_cities"


class Street(BaseModel):
    """Refers to a text that is no primary key."""

    city = ForeignKeyField(City, field="code", backref="streets")
    name = TextField()

    class Meta:
        table_name = "related_streets"


class House(BaseModel):
    street = ForeignKeyField(Street, null=True, backref="houses")
    number = IntegerField()
    color = TextField(default="red")

    class Meta:
        table_name = "related_houses"


STRATEGIES = [PREFETCH_TYPE.WHERE, PREFETCH_TYPE.MATERIALIZE, PREFETCH_TYPE.JOIN]


@pytest.fixture
def tables(rollback_db):
    rollback_db.create_tables([City, Street, House])
    return rollback_db


@pytest.fixture
def town(tables):
    """Two cities with 2 and 1 streets, with 4, 1 and 0 houses."""
    rome, oslo = (City.create(code=code) for code in ('R"o,m\\e', "{Oslo}"))
    via, corso = (Street.create(city=rome, name=name) for name in ("via", "corso"))
    Street.create(city=oslo, name="gate")
    for number in (3, 1, 4, 2):
        House.create(street=via, number=number)
    House.create(street=corso, number=9)
    House.create(street=None, number=0)
    return tables


def numbers(street):
    return [house.number for house in street.houses]


def test_children_are_read_in_one_query_and_then_without_any(town):
    with statements() as events:
        streets = list(Street.select().order_by(Street.name).with_related(Street.houses))
    assert len(events) == 2
    with no_statement():
        assert [sorted(numbers(street)) for street in streets] == [[9], [], [1, 2, 3, 4]]
        assert all(house.street is street for street in streets for house in street.houses)


def test_parents_are_read_in_one_query_and_then_without_any(town):
    with statements() as events:
        houses = list(House.select().order_by(House.number).with_related(House.street))
    assert len(events) == 2
    with no_statement():
        names = [house.street and house.street.name for house in houses]
    assert names == [None, "via", "via", "via", "via", "corso"]


def test_a_tree_takes_one_query_for_each_relation(town):
    tree = Load(City.streets).then(Load(Street.houses, House.select().order_by(House.number)))
    with statements() as events:
        cities = list(City.select().order_by(City.id).with_related(tree))
    assert len(events) == 3
    with no_statement():
        found = {one.name: numbers(one) for city in cities for one in city.streets}
    assert found == {"via": [1, 2, 3, 4], "corso": [9], "gate": []}


def test_several_relations_take_a_query_each(town):
    with statements() as events:
        list(Street.select().with_related(Street.houses, Street.city))
    assert len(events) == 3


def test_the_sql_is_the_same_for_any_number_of_parents(town, caplog):
    caplog.set_level("DEBUG", "orm_core.database")
    for count in (1, 2, 3):
        list(Street.select().limit(count).with_related(Street.houses))
    sent = {line.getMessage().split(" ", 1)[1] for line in caplog.records}
    assert len([sql for sql in sent if '"related_houses"' in sql]) == 1


def test_nothing_is_sent_for_parents_that_refer_to_none(town):
    with statements() as events:
        (house,) = House.select().where(House.number == 0).with_related(House.street)
    assert len(events) == 1
    assert house.street is None


def test_nothing_is_sent_where_there_are_no_parents(town):
    with statements() as events:
        assert list(Street.select().where(Street.name == "no").with_related(Street.houses)) == []
    assert len(events) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_limit_for_each_parent_takes_the_first_in_order(town, strategy):
    order = House.select().order_by(House.number.desc())
    load = Load(Street.houses, order, strategy=strategy, per_parent=2)
    streets = Street.select().order_by(Street.name).with_related(load)
    assert [numbers(street) for street in streets] == [[9], [], [4, 3]]


def test_a_limit_for_each_parent_goes_by_the_key_without_an_order(town):
    (via,) = (
        Street.select().where(Street.name == "via").with_related(Load(Street.houses, per_parent=3))
    )
    assert numbers(via) == [3, 1, 4]


def test_a_limit_for_each_parent_counts_what_the_query_sees(town):
    House.delete().where(House.number == 4).execute()
    for base, expected in (
        (House.select(), [3, 2]),
        (House.with_deleted(), [4, 3]),
        (House.only_deleted(), [4]),
        (House.select().where(House.number < 3), [2, 1]),
        (House.select().where(House.color == "%s blue"), []),
    ):
        load = Load(Street.houses, base.order_by(House.number.desc()), per_parent=2)
        (via,) = Street.select().where(Street.name == "via").with_related(load)
        assert numbers(via) == expected


def test_a_limit_for_each_parent_with_a_join_counts_the_joined_rows(town):
    base = House.select(House, Street).join(Street, JOIN.INNER).order_by(Street.name, House.number)
    (via,) = (
        Street.select()
        .where(Street.name == "via")
        .with_related(Load(Street.houses, base, per_parent=2))
    )
    assert numbers(via) == [1, 2]


def test_a_limit_of_the_query_itself_is_for_all_parents(town):
    load = Load(Street.houses, House.select().order_by(House.number.desc()).limit(3))
    streets = Street.select().order_by(Street.name).with_related(load)
    assert [numbers(street) for street in streets] == [[9], [], [4, 3]]


@pytest.mark.parametrize("limit", [0, -1, True, "2", 1.5])
def test_a_limit_that_is_no_count_is_refused(tables, limit):
    with no_statement(), pytest.raises(InvalidValue, match="per_parent"):
        Street.select().with_related(Load(Street.houses, per_parent=limit))


def test_parents_without_the_key_are_refused(town):
    with pytest.raises(InvalidValue, match=r"Street\.id; select it"):
        list(Street.select(Street.name).with_related(Street.houses))


def test_the_same_parent_twice_has_the_same_children(town):
    query = Street.select().join(House).where(Street.name == "via").with_related(Street.houses)
    rows = list(query)
    assert len(rows) == 4
    assert all(sorted(numbers(row)) == [1, 2, 3, 4] for row in rows)


def test_children_of_one_row_are_read_with_get(town):
    street = Street.select().where(Street.name == "via").with_related(Street.houses).get()
    with no_statement():
        assert len(street.houses) == 4
    with pytest.raises(NotFound):
        Street.select().where(Street.name == "no").with_related(Street.houses).get()


def test_children_that_were_read_along_can_be_saved(town):
    street = Street.select().where(Street.name == "via").with_related(Street.houses).get()
    house = street.houses[0]
    assert house.dirty_fields == []
    house.color = "blue"
    house.save()
    assert House.get_by_id(house.id).color == "blue"
    assert House.get_by_id(house.id).street_id == street.id


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    houses=st.lists(
        st.tuples(st.none() | st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=12
    ),
    limit=st.none() | st.integers(1, 3),
    down=st.booleans(),
    sees=st.sampled_from(["live", "all", "deleted"]),
)
def test_relations_are_what_python_makes_of_the_rows(tables, houses, limit, down, sees):
    with db.atomic() as undo:
        city = City.create(code="c")
        streets = [Street.create(city=city, name=str(number)) for number in range(4)]
        expected = {street.id: [] for street in streets}
        for place, number, gone in houses:
            street = None if place is None else streets[place]
            house = House.create(street=street, number=number)
            if gone:
                house.delete_instance()
            if street and sees in ("all", "deleted" if gone else "live"):
                expected[street.id].append((number, house.id))
        base = {
            "live": House.select,
            "all": House.with_deleted,
            "deleted": House.only_deleted,
        }[sees]()
        order = [House.number.desc(), House.id.desc()] if down else [House.number, House.id]
        load = Load(Street.houses, base.order_by(*order), per_parent=limit)
        for street in Street.select().with_related(load):
            found = [(house.number, house.id) for house in street.houses]
            assert found == sorted(expected[street.id], reverse=down)[:limit]
        undo.rollback()
