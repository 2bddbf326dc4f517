"""``import orm_core`` brings what each use needs, and nothing for a few of them."""

import subprocess
import sys

import pytest

#: packages and slow modules, and what needs them
LATER = {
    "prometheus_client": "metrics",
    "cryptography": "secrets",
    "rich": "the command line",
    "click": "the command line",
    "dotenv": "initialize_db",
    "flask": "the studio",
    "orm_core.metrics": "registering a domain",
    "orm_core.migrations": "migrations",
    "orm_core.database.reachability": "a connection that failed",
    "importlib.metadata": "registry.discover",
    "pkgutil": "registry.discover",
    "difflib": "a misspelled name",
}


@pytest.fixture(scope="module")
def brought() -> set[str]:
    code = (
        "import sys, peewee, psycopg2.extras; before = set(sys.modules);"
        "import orm_core; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LATER, ids=str)
def test_importing_orm_core_leaves_for_later(brought, module):
    assert module not in brought, f"needed for {LATER[module]}"


def test_importing_orm_core_brings_its_public_names(brought):
    assert {"orm_core", "orm_core.service", "orm_core.queries.compiled"} <= brought
