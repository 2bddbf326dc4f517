"""The registry: what it takes, what it refuses, and the three doors by which domains come."""

import json
import os
import re
import subprocess
import sys
import textwrap
from enum import Enum
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from service_helpers import new_user, statements, user_data

from domains import orders, users
from orm_core import (
    BaseModel,
    Domain,
    EnumField,
    ForeignKeyField,
    MigrationError,
    Registry,
    RegistryError,
    Service,
    TextField,
    registry,
    signals,
)

ROOT = Path(__file__).parents[2]


class Shop(BaseModel):
    class Meta:
        table_name = "registry_shops"


class Item(BaseModel):
    shop = ForeignKeyField(Shop)

    class Meta:
        table_name = "registry_items"


class Shelf(BaseModel):
    parent = ForeignKeyField("self", null=True)
    item = ForeignKeyField(Item)

    class Meta:
        table_name = "registry_shelves"


class ShopService(Service[Shop]):
    """Shops."""


shops = Domain("shops", models=(Shop,), services=(ShopService,))
items = Domain("items", models=(Item,))


# -- register -----------------------------------------------------------------------------------


def test_a_registered_domain_is_there():
    registry = Registry()
    registry.register(shops)
    assert list(registry) == [shops]
    assert len(registry) == 1
    assert registry["shops"] is shops
    assert shops in registry
    assert "shops" in registry


def test_an_empty_registry_has_nothing():
    registry = Registry()
    assert (len(registry), list(registry), registry.models, registry.tables) == (0, [], (), ())
    assert (shops in registry, "shops" in registry) == (False, False)


def test_domains_stand_in_the_order_of_their_registration():
    registry = Registry()
    registry.register(shops)
    registry.register(items)
    assert [domain.name for domain in registry] == ["shops", "items"]


def test_the_same_domain_again_is_no_change():
    registry = Registry()
    registry.register(shops)
    registry.register(shops)
    registry.register(Domain("shops", models=(Shop,), services=(ShopService,)), shops)
    assert list(registry) == [shops]


def test_another_domain_of_a_name_is_refused():
    registry = Registry()
    registry.register(shops)
    with pytest.raises(RegistryError, match="The domain name 'shops' is taken by <Domain shops"):
        registry.register(Domain("shops"))
    assert list(registry) == [shops]


def test_a_domain_of_the_same_name_and_other_content_is_not_in_the_registry():
    registry = Registry()
    registry.register(shops)
    assert Domain("shops") not in registry


def test_a_table_claimed_twice_is_refused():
    class Other(BaseModel):
        class Meta:
            table_name = "registry_shops"

    registry = Registry()
    registry.register(shops)
    claimed = r"Table 'registry_shops' of others.Other is claimed already by shops\.Shop"
    with pytest.raises(RegistryError, match=claimed):
        registry.register(Domain("others", models=(Other,)))


def test_a_table_claimed_twice_by_one_domain_is_refused():
    class Other(BaseModel):
        class Meta:
            table_name = "registry_shops"

    with pytest.raises(RegistryError, match="claimed already"):
        Registry().register(Domain("both", models=(Shop, Other)))


def test_a_model_of_two_domains_is_refused():
    with pytest.raises(RegistryError, match="claimed already"):
        Registry().register(shops, Domain("others", models=(Shop,)))


def test_tables_of_the_same_name_in_two_schemas_are_two_tables():
    class Other(BaseModel):
        class Meta:
            table_name = "registry_shops"
            schema = "elsewhere"

    registry = Registry()
    registry.register(shops, Domain("others", models=(Other,)))
    assert sorted(registry.tables) == ["elsewhere.registry_shops", "registry_shops"]


def two_enums(second):
    class One(BaseModel):
        mood = EnumField(Enum("Mood", {"GOOD": "good", "BAD": "bad"}), type_name="registry_mood")

        class Meta:
            table_name = "registry_ones"

    class Two(BaseModel):
        mood = EnumField(Enum("Mood", second), type_name="registry_mood")

        class Meta:
            table_name = "registry_twos"

    return Domain("ones", models=(One,)), Domain("twos", models=(Two,))


@pytest.mark.parametrize("labels", [{"GOOD": "good"}, {"BAD": "bad", "GOOD": "good"}])
def test_an_enum_type_with_other_labels_is_refused(labels):
    with pytest.raises(RegistryError, match=r"'registry_mood' of Two\.mood has other labels"):
        Registry().register(*two_enums(labels))


def test_an_enum_type_may_be_shared():
    registry = Registry()
    registry.register(*two_enums({"GOOD": "good", "BAD": "bad"}))
    assert len(registry) == 2


def test_a_service_without_a_model_is_refused():
    class Bare(Service):
        """No model."""

    with pytest.raises(RegistryError, match=r"The model of shops\.Bare is not among"):
        Registry().register(Domain("shops", models=(Shop,), services=(Bare,)))


def test_a_service_of_another_domains_model_is_refused():
    registry = Registry()
    registry.register(shops)
    with pytest.raises(RegistryError, match=r"The model of others\.ShopService is not among"):
        registry.register(Domain("others", services=(ShopService,)))


def test_a_reference_to_a_table_that_is_not_registered_is_refused():
    with pytest.raises(RegistryError, match=r"items\.Item\.shop refers to Shop"):
        Registry().register(items)


def test_a_reference_to_a_table_registered_before_is_taken():
    registry = Registry()
    registry.register(shops)
    registry.register(items)
    assert items in registry


def test_domains_may_be_given_in_any_order_in_one_call():
    registry = Registry()
    registry.register(items, shops)
    assert registry.models == (Shop, Item)


def test_domains_that_refer_to_each_other_are_registered_together():
    class Left(BaseModel):
        class Meta:
            table_name = "registry_lefts"

    class Right(BaseModel):
        left = ForeignKeyField(Left)

        class Meta:
            table_name = "registry_rights"

    class Farther(BaseModel):
        right = ForeignKeyField(Right)

        class Meta:
            table_name = "registry_farthers"

    outer = Domain("outer", models=(Left, Farther))
    inner = Domain("inner", models=(Right,))
    for first, second in ((outer, inner), (inner, outer)):
        with pytest.raises(RegistryError, match="refers to"):
            Registry().register(first)
        registry = Registry()
        registry.register(first, second)
        assert registry.models == (Left, Right, Farther)


def test_a_refusal_leaves_the_registry_as_it_was():
    registry = Registry()
    registry.register(shops)
    good = Domain("good")
    with pytest.raises(RegistryError):
        registry.register(good, Domain("shops"))
    assert list(registry) == [shops]
    with pytest.raises(RegistryError):
        registry.register(good, Domain("bad", services=(ShopService,)))
    assert list(registry) == [shops]


def test_a_refusal_makes_no_table_known():
    class Lost(BaseModel):
        shop = ForeignKeyField(Shop)

        class Meta:
            table_name = "registry_lost"

    with pytest.raises(RegistryError):
        Registry().register(Domain("lost", models=(Lost,)))
    assert "registry_lost" not in signals.tables


def test_all_problems_are_told_at_once():
    class Bare(Service):
        """No model."""

    with pytest.raises(RegistryError, match=r"Item\.shop refers(.|\n)*things\.Bare is not among"):
        Registry().register(Domain("things", models=(Item,), services=(Bare,)))


@pytest.mark.parametrize("thing", [None, "shops", Shop, users, Domain])
def test_what_is_no_domain_is_refused(thing):
    with pytest.raises(RegistryError, match="takes Domain values"):
        Registry().register(thing)


# -- reading ------------------------------------------------------------------------------------


def test_models_stand_after_those_that_they_refer_to():
    registry = Registry()
    registry.register(Domain("all", models=(Shelf, Item, Shop)))
    assert registry.models == (Shop, Item, Shelf)


def test_services_and_tables_of_all_domains_are_listed():
    registry = Registry()
    registry.register(shops, items)
    assert registry.services == (ShopService,)
    assert registry.tables == ("registry_shops", "registry_items")


def test_a_name_that_is_not_registered_says_what_is():
    registry = Registry()
    with pytest.raises(RegistryError, match="No domain 'nope' is registered; there is: none"):
        registry["nope"]
    registry.register(shops)
    with pytest.raises(RegistryError, match="there is: shops"):
        registry["nope"]


@pytest.mark.parametrize("thing", [None, 3, "other", Shop, Domain("others")])
def test_other_things_are_not_in_a_registry(thing):
    assert thing not in Registry()


def test_a_registry_can_be_printed():
    registry = Registry()
    assert repr(registry) == "<Registry of 0 domain(s)>"
    registry.register(shops, items)
    assert repr(registry) == (
        "<Registry of 2 domain(s)\n"
        "  <Domain shops: Shop; ShopService>\n"
        "  <Domain items: Item; no services>>"
    )


def test_a_fresh_registry_stands_beside_the_global_one():
    before = list(registry)
    Registry().register(shops)
    assert list(registry) == before


def test_check_tells_when_domains_do_not_fit_any_more():
    class Late(BaseModel):
        class Meta:
            table_name = "registry_late"

    registry = Registry()
    registry.register(Domain("late", models=(Late,)))
    registry.check()
    Late._meta.add_field("shop", ForeignKeyField(Shop))
    with pytest.raises(RegistryError, match=r"late\.Late\.shop refers to Shop"):
        registry.check()


def test_a_router_needs_a_folder(rollback_db, tmp_path):
    with pytest.raises(MigrationError, match=r"no folder .*ORM_CORE_MIGRATIONS_DIR"):
        Registry().router(rollback_db, tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


# -- metrics and signals of registered tables ---------------------------------------------------


def counted(operation, table):
    labels = {"operation": operation, "table": table}
    return REGISTRY.get_sample_value("db_queries_total", labels) or 0


class Wired(BaseModel):
    name = TextField()

    class Meta:
        table_name = "registry_wired"


def test_a_table_has_its_metrics_once_it_is_registered(rollback_db):
    rollback_db.create_tables([Wired])
    others = counted("insert", "other")
    Wired.create(name="before")
    assert counted("insert", "other") == others + 1
    Registry().register(Domain("wired", models=(Wired,)))
    Wired.create(name="after")
    assert counted("insert", "registry_wired") == 1
    assert counted("insert", "other") == others + 1


def test_registering_again_counts_no_query_twice(rollback_db):
    before = counted("insert", "users")
    Registry().register(users.domain, orders.domain)
    Registry().register(users.domain)
    new_user()
    assert counted("insert", "users") == before + 1


def test_a_receiver_can_be_added_to_a_registered_table(rollback_db):
    seen = []
    signals.connect(seen.append, "users")
    try:
        new_user()
    finally:
        signals.disconnect(seen.append, "users")
    new_user()
    assert [(event.operation, event.table, event.error) for event in seen] == [
        ("insert", "users", None)
    ]


def test_a_receiver_of_an_unknown_table_is_refused():
    with pytest.raises(RegistryError, match="No registered domain has a table 'nowhere'"):
        signals.connect(print, "nowhere")


def test_a_service_call_is_one_event_of_its_table(rollback_db):
    with statements() as events:
        users.UsersService.create(user_data())
    assert [(event.operation, event.table) for event in events] == [("insert", "users")]


# -- discover, each in a process of its own -----------------------------------------------------

BILLING = """
    from orm_core import BaseModel, Domain, ForeignKeyField, Service
    from domains.users import User

    class Invoice(BaseModel):
        user = ForeignKeyField(User)

        class Meta:
            table_name = "invoices"

    class InvoicesService(Service[Invoice]):
        \"\"\"Invoices.\"\"\"

    domain = Domain("billing", models=(Invoice,), services=(InvoicesService,))
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def distribution(folder, *, entry_points):
    """An installed package's metadata, as pip writes them."""
    info = folder / "acme_billing-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: acme-billing\nVersion: 1.0\n")
    write(info / "entry_points.txt", f"[orm_core.domains]\n{entry_points}\n")


def python(code, *folders):
    """Run code with these folders first on ``sys.path``; the process that ended."""
    path = os.pathsep.join(map(str, [*folders, ROOT]))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


def answer(code, *folders):
    """What code prints as JSON."""
    done = python(code, *folders)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


DISCOVER = """
    import json
    from orm_core import registry
    found = registry.discover()
    print(json.dumps([[one.name for one in found], [one.name for one in registry],
                      list(registry.tables)]))
"""


def test_discover_finds_the_domains_beside_ours(tmp_path):
    write(tmp_path / "domains/billing/__init__.py", BILLING)
    found, registered, tables = answer(DISCOVER, tmp_path)
    assert found == registered == ["billing", "orders", "users"]
    assert sorted(tables) == ["invoices", "orders", "sessions", "users"]
    assert tables.index("users") < tables.index("invoices")


def test_discover_finds_an_installed_packages_entry_point(tmp_path):
    write(tmp_path / "acme_billing/__init__.py", BILLING)
    distribution(tmp_path, entry_points="billing = acme_billing:domain")
    assert answer(DISCOVER, tmp_path)[0] == ["billing", "orders", "users"]


def test_a_domain_that_comes_by_two_doors_is_one(tmp_path):
    write(tmp_path / "domains/billing/__init__.py", BILLING)
    distribution(tmp_path, entry_points="billing = domains.billing:domain")
    assert answer(DISCOVER, tmp_path)[0] == ["billing", "orders", "users"]


def test_discover_twice_changes_nothing(tmp_path):
    again = DISCOVER.replace("found =", "registry.discover(); found =")
    assert answer(again, tmp_path)[1] == ["orders", "users"]


def test_discover_reads_another_namespace_and_group(tmp_path):
    write(tmp_path / "tables/things/__init__.py", BILLING)
    named = DISCOVER.replace("discover()", "discover(namespace='tables', entry_points='none')")
    done = python(named, tmp_path)
    assert "billing.Invoice.user refers to User" in done.stderr
    first = named.replace("found =", "registry.discover(); found =")
    found, registered, _ = answer(first, tmp_path)
    assert (found, registered) == (["billing"], ["orders", "users", "billing"])


def test_discover_takes_only_the_domains_that_are_named(tmp_path):
    write(tmp_path / "domains/billing/__init__.py", "import no_such_module")
    named = DISCOVER.replace("discover()", "discover(['orders', 'users'])")
    assert answer(named, tmp_path)[0] == ["orders", "users"]


def test_an_entry_point_that_is_not_named_is_not_loaded(tmp_path):
    distribution(tmp_path, entry_points="billing = no_such_package:domain")
    named = DISCOVER.replace("discover()", "discover(['users'])")
    assert answer(named, tmp_path)[0] == ["users"]


def test_the_domains_may_be_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ORM_CORE_DOMAINS", "users , orders")
    assert answer(DISCOVER)[0] == ["orders", "users"]
    monkeypatch.setenv("ORM_CORE_DOMAINS", "users")
    assert answer(DISCOVER)[0] == ["users"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["users", "nope"], "There is no domain nope to discover."),
        (["orders"], "refers to User, which no registered domain has"),
    ],
)
def test_a_domain_that_is_named_and_not_there_is_refused(names, told):
    error, text, count = answer(REFUSED.replace("discover()", f"discover({names})"))
    assert (error, count) == ("RegistryError", 0)
    assert told in text


def test_a_namespace_that_is_not_there_holds_no_domain():
    named = DISCOVER.replace("discover()", "discover(namespace='no_such', entry_points='none')")
    assert answer(named) == [[], [], []]


REFUSED = """
    import json
    from orm_core import RegistryError, registry
    try:
        registry.discover()
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error), len(registry)]))
"""


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("from orm_core import no_such_name", "ImportError"),
        ("1 / 0", "ZeroDivisionError"),
        ("from domains.users import Nobody", "ImportError"),
    ],
)
def test_a_domain_that_cannot_be_imported_stops_everything(tmp_path, line, error):
    write(tmp_path / "domains/billing/__init__.py", line)
    assert answer(REFUSED, tmp_path)[::2] == [error, 0]


def test_a_package_that_is_called_domains_and_fails_stops_everything(tmp_path):
    write(tmp_path / "domains/__init__.py", "import no_such_module")
    assert answer(REFUSED, tmp_path)[::2] == ["ModuleNotFoundError", 0]


def test_a_package_without_a_domain_is_refused(tmp_path):
    write(tmp_path / "domains/billing/__init__.py", "domain = 'billing'")
    error, told, count = answer(REFUSED, tmp_path)
    assert (error, count) == ("RegistryError", 0)
    assert "domains.billing has no `domain = Domain(...)`" in told


def test_a_folder_without_an_init_is_not_passed_over(tmp_path):
    write(tmp_path / "domains/billing/models.py", BILLING)
    error, told, _ = answer(REFUSED, tmp_path)
    assert error == "RegistryError"
    assert re.search(r"domains\Wbilling has no __init__\.py", told)


def test_an_entry_point_that_cannot_be_imported_stops_everything(tmp_path):
    distribution(tmp_path, entry_points="billing = acme_billing:domain")
    assert answer(REFUSED, tmp_path)[::2] == ["ModuleNotFoundError", 0]


def test_an_entry_point_that_is_no_domain_is_refused(tmp_path):
    distribution(tmp_path, entry_points="billing = json:dumps")
    error, told, _ = answer(REFUSED, tmp_path)
    assert error == "RegistryError"
    assert "The entry point json:dumps of orm_core.domains is no Domain" in told


def test_two_packages_that_offer_one_name_are_refused(tmp_path):
    write(tmp_path / "acme_billing/__init__.py", BILLING.replace('"billing"', '"orders"'))
    distribution(tmp_path, entry_points="orders = acme_billing:domain")
    error, told, _ = answer(REFUSED, tmp_path)
    assert error == "RegistryError"
    assert "Two installed packages offer a domain 'orders'" in told


def test_an_entry_point_of_another_name_than_its_domain_is_refused(tmp_path):
    write(tmp_path / "acme_billing/__init__.py", BILLING)
    distribution(tmp_path, entry_points="accounts = acme_billing:domain")
    error, told, _ = answer(REFUSED, tmp_path)
    assert error == "RegistryError"
    assert "accounts of orm_core.domains offers the domain 'billing'" in told


def test_one_name_to_discover_is_one_name(tmp_path):
    code = """
        import json
        from orm_core import registry
        registry.discover("users")
        print(json.dumps([domain.name for domain in registry]))
    """
    assert answer(code, tmp_path) == ["users"]


def test_importing_a_domain_changes_nothing():
    answered = answer(
        """
        import json, sys
        from prometheus_client import REGISTRY
        metrics = {metric.name for metric in REGISTRY.collect()}
        import domains.orders, domains.users
        from orm_core import db, registry, signals
        print(json.dumps({
            "domains": len(registry),
            "tables": sorted(signals.tables),
            "metrics": sorted({metric.name for metric in REGISTRY.collect()} - metrics),
            "deferred": db.deferred,
        }))
        """
    )
    assert answered == {"domains": 0, "tables": ["none", "other"], "metrics": [], "deferred": True}
