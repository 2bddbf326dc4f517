"""``import orm_core`` brings nothing yet, and a service brings what it uses."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import orm_core

#: what defines a small service; it is not registered, and opens no database
SERVICE = """
from orm_core import BaseModel, CharField, Domain, Service, db, finder, initialize_db, registry

class User(BaseModel):
    email = CharField(unique=True)

class UsersService(Service[User]):
    find_by_email = finder(User.email)

domain = Domain("users", models=(User,), services=(UsersService,))
"""
#: packages and slow modules, and what needs them
LATER = {
    "prometheus_client": "metrics",
    "cryptography": "secrets",
    "rich": "the command line",
    "click": "the command line",
    "dotenv": "initialize_db",
    "flask": "the studio",
    "typing_extensions": "checkers",
    "pathlib": "initialize_db",
    "urllib.parse": "initialize_db",
    "orm_core.settings": "initialize_db",
    "orm_core.database.url": "initialize_db",
    "orm_core.metrics": "registering a domain",
    "orm_core.audit.service": "reading the audit trail",
    "orm_core.models.audit_log": "a domain that is audited",
    "orm_core.models.data_keys": "secrets that have owners",
    "orm_core.models.policies": "row-level security",
    "orm_core.schemas": "to_dict and to_pydantic",
    "orm_core.migrations": "migrations",
    "orm_core.database.reachability": "a connection that failed",
    "importlib.metadata": "registry.discover",
    "pkgutil": "registry.discover",
    "difflib": "a misspelled name",
}
PLACE = Path(orm_core.__file__).parent


def brought_by(statements: str) -> set[str]:
    code = (
        "import sys, peewee, psycopg2.extras; before = set(sys.modules)\n"
        f"{statements}\nprint(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def brought() -> set[str]:
    return brought_by(SERVICE)


@pytest.mark.parametrize("module", LATER, ids=str)
def test_defining_a_service_leaves_for_later(brought, module):
    assert module not in brought, f"needed for {LATER[module]}"


def test_importing_orm_core_alone_brings_nothing_else():
    assert brought_by("import orm_core") == {"orm_core"}


def test_a_name_brings_what_it_needs():
    needed = {"orm_core.errors", "orm_core.peewee_facade"}
    assert needed & brought_by("from orm_core import NotFound") == {"orm_core.errors"}


def test_each_public_name_is_there():
    assert [name for name in orm_core.__all__ if not hasattr(orm_core, name)] == []
    assert set(orm_core.__all__) <= set(dir(orm_core))


def test_checkers_know_the_same_names_from_the_same_modules():
    stub = ast.parse((PLACE / "__init__.pyi").read_text())
    found = {
        name.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert found == {name: f"orm_core.{module}" for name, module in orm_core._HOMES.items()}
    (listed,) = (node for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(listed.value)) == sorted(orm_core.__all__)


def test_no_public_name_is_that_of_a_module():
    """Importing the module would put it in the name's place."""
    modules = {path.stem for path in PLACE.iterdir()}
    assert not modules & set(orm_core.__all__)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = orm_core.nothing
