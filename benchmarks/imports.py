"""W13: what an import costs, in fresh interpreters that take turns."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

#: orm_core brings a module with the first use of a name, so its import alone tells little
SERVICE: Final = """
from orm_core import BaseModel, CharField, Domain, Service, db, finder, initialize_db, registry
class User(BaseModel):
    email = CharField(unique=True)
    class Meta:
        table_name = "users"
class UsersService(Service[User]):
    find_by_email = finder(User.email)
domain = Domain("users", models=(User,), services=(UsersService,))
"""
IMPORTS: Final = {
    "peewee + psycopg2": "import peewee, psycopg2",
    "orm_core": "import orm_core",
    "orm_core + a service defined": SERVICE,
    "orm_core + a service registered": f"{SERVICE}registry.register(domain)",
    "sqlalchemy + psycopg2": "import sqlalchemy.orm, sqlalchemy.dialects.postgresql.psycopg2",
    "django + psycopg2": "import django.db.models, django.db.backends.postgresql.base",
}
#: the goal is measured from this one
BEFORE: Final = "peewee + psycopg2"
PROGRAM: Final = """
import sys, time
sys.modules["psycopg"] = None  # peewee loads every driver that is installed
before = len(sys.modules)
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
modules = len(sys.modules) - before
import json, re
text = open("/proc/self/status").read() if sys.platform == "linux" else "VmRSS: 0 kB"
memory = int(re.search(r"VmRSS:\\s+(\\d+)", text)[1])
print(json.dumps([seconds * 1000, memory / 1024, modules]))
"""


@dataclass(frozen=True)
class Import:
    """Medians of one import: milliseconds, the process's MB afterwards, modules it loaded."""

    milliseconds: float
    megabytes: float
    modules: float


def measure(repeat: int = 21) -> dict[str, Import]:
    """Each import in ``repeat`` interpreters; those of packages that are absent are left out."""
    there = {name: one for name, one in IMPORTS.items() if _run(one) is not None}
    taken: dict[str, list[list[float]]] = {name: [] for name in there}
    for _ in range(repeat):
        for name, statement in there.items():
            answer = _run(statement)
            assert answer is not None
            taken[name].append(answer)
    return {
        name: Import(*(statistics.median(column) for column in zip(*rows, strict=True)))
        for name, rows in taken.items()
    }


def _run(statement: str) -> list[float] | None:
    program = PROGRAM.format(statement=statement)
    command = [sys.executable, "-c", program]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, env=_keeping_code()
    )
    found: list[float] | None = json.loads(answer.stdout) if answer.returncode == 0 else None
    return found


def _keeping_code() -> dict[str, str]:
    """The environment, without the switch that has a checkout compiled anew at every import."""
    return {name: one for name, one in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def dearest(statement: str = "from orm_core import *", count: int = 15) -> list[tuple[str, float]]:
    """The top-level packages that a statement loads, and the milliseconds spent in each.

    By ``python -X importtime``, which makes all imports slower; shares count, not sums.
    """
    program = f"import sys; sys.modules['psycopg'] = None; {statement}"
    command = [sys.executable, "-X", "importtime", "-c", program]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env=_keeping_code()
    )
    spent: dict[str, float] = {}
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", answer.stderr, re.M):
        package = name.partition(".")[0]
        spent[package] = spent.get(package, 0) + int(own) / 1000
    return sorted(spent.items(), key=lambda one: -one[1])[:count]
