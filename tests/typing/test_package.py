"""What whoever installs the package gets: types of everything, without this checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from checkers import FOLDER, ROOT

import domains.users
import orm_core

DOMAIN = """
from uuid import UUID

from domains.users import User
from orm_core import BaseModel, Domain, ForeignKeyField, ForeignKeyId, IntegerField, Service, finder
from acme_billing.payloads import NewInvoice, UpdateInvoice


class Invoice(BaseModel):
    user = ForeignKeyField(User, backref="invoices")
    user_id: ForeignKeyId[UUID]
    number = IntegerField(unique="live")

    class Meta:
        table_name = "invoices"


class InvoicesService(Service[Invoice, NewInvoice, UpdateInvoice]):
    find_by_number = finder(Invoice.number)


domain = Domain("billing", models=(Invoice,), services=(InvoicesService,))
"""
USE = """# pyright: strict
from uuid import UUID

from acme_billing import Invoice, InvoicesService
from domains.users import User, UsersService


def use(user: User, key: UUID) -> int:
    invoice = InvoicesService.create({"user_id": user.id, "number": 3})
    found = InvoicesService.find_by_number(3)
    email: str = invoice.user.email
    pairs: list[tuple[UUID, int]] = list(Invoice.select().values(Invoice.id, Invoice.number))
    for name in (email, *(one.user.first_name for one in Invoice.select().join(User))):
        print(name)
    InvoicesService.create({"user_id": user.id})  # WRONG
    InvoicesService.create({"user_id": user.id, "number": "3"})  # WRONG
    InvoicesService.create({"user_id": user.id, "number": 3, "nope": 1})  # WRONG
    Invoice.select().where(Invoice.number == "3")  # WRONG
    Invoice.select().where(Invoice.number.ilike("3"))  # WRONG
    Invoice.select().where(Invoice.typo == 3)  # WRONG
    UsersService.create({"email": "x"})  # WRONG
    invoice.number = "3"  # WRONG
    invoice.user = key  # WRONG
    return len(pairs) + (found.number if found else 0)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the package's files as a wheel has them, and our own for the rest."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    site = next((folder / "venv").glob("lib/python*/site-packages"))
    outside = {str(Path(place)) for place in sys.path if Path(place).name == "site-packages"}
    (site / "dependencies.pth").write_text("\n".join(sorted(outside)))
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    data = setuptools["package-data"]["*"]
    for package in (Path(orm_core.__file__).parent, Path(domains.users.__file__).parents[1]):
        for pattern in ("*.py", *data):
            for file in package.rglob(pattern):
                target = site / package.name / file.relative_to(package)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    (site / "acme_billing").mkdir()
    (site / "acme_billing" / "__init__.py").write_text(DOMAIN)
    (site / "acme_billing" / "py.typed").touch()
    (folder / "use.py").write_text(USE)
    return folder


def run(installed: Path, *command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=installed,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def billing(installed: Path) -> Path:
    """The same, after the third party wrote the types of its domain."""
    site = next((installed / "venv").glob("lib/python*/site-packages"))
    code = (
        "from orm_core.typegen import files, without_files\n"
        "from pathlib import Path\n"
        "with without_files():\n"
        "    from acme_billing import Invoice\n"
        f"for path, text in files([Invoice], Path({str(site)!r})).items():\n"
        "    path.write_text(text)\n"
    )
    python = installed / "venv" / "bin" / "python"
    subprocess.run([python, "-c", code], check=True, timeout=60)
    return installed


EXPECTED = {number for number, line in enumerate(USE.splitlines(), 1) if "# WRONG" in line}


def test_mypy_checks_a_third_partys_domain(billing):
    python = str(billing / "venv" / "bin" / "python")
    said = run(billing, "mypy", "--strict", "--python-executable", python, "use.py")
    assert {int(line) for line in re.findall(r"use\.py:(\d+): error", said)} == EXPECTED, said
    assert f"Found {len(EXPECTED)} errors in 1 file" in said


def test_pyright_checks_a_third_partys_domain(billing):
    python = str(billing / "venv" / "bin" / "python")
    said = run(billing, "pyright", "--pythonpath", python, "--outputjson", "use.py")
    report: Any = json.loads(said)["generalDiagnostics"]
    lines = {one["range"]["start"]["line"] + 1 for one in report if one["severity"] == "error"}
    assert lines == EXPECTED, said


def test_all_of_the_public_interface_has_types(installed):
    # In this mode pyright takes the Python that is first in PATH.
    path = f"{installed / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    verify = ("pyright", "--verifytypes", "orm_core", "--ignoreexternal")
    said = run(installed, *verify, env={**os.environ, "PATH": path})
    assert "Type completeness score: 100%" in said, said


def test_the_stub_says_what_runs():
    command = [sys.executable, "-m", "mypy.stubtest", "orm_core.peewee_facade"]
    options = ["--ignore-missing-stub", "--mypy-config-file", str(ROOT / "setup.cfg")]
    allowed = ["--allowlist", str(FOLDER / "stub_differences.txt"), "--ignore-unused-allowlist"]
    done = subprocess.run(
        [*command, *options, *allowed], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
