"""The files that `orm-core types generate` writes."""

from __future__ import annotations

import ast
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from domains.orders import Order
from domains.users import Session, User
from orm_core import (
    ArrayField,
    AutoField,
    Backref,
    BaseModel,
    EnumField,
    ForeignKeyField,
    ForeignKeyId,
    IntegerField,
    JSONField,
    OtherField,
    RegistryError,
    TextField,
    VersionField,
)
from orm_core.cli import main
from orm_core.typegen import files, is_stale, text

ROOT = Path(__file__).parents[2]


class Shade(Enum):
    DARK = "dark"


class Everything(BaseModel):
    id = AutoField()
    shade = EnumField(Shade, null=True)
    words = ArrayField(TextField())
    shape = JSONField(dict[str, list[int]], null=True)
    loose = JSONField()
    inet = OtherField("inet")
    doubled = IntegerField(generated="id * 2", null=True)
    counted = IntegerField(server_default="1")
    parent = ForeignKeyField("self", null=True)

    class Meta:
        table_name = "everything"


def entries(source: str, name: str) -> dict[str, str]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            found = [one for one in node.body if isinstance(one, ast.AnnAssign)]
            return {ast.unparse(one.target): ast.unparse(one.annotation) for one in found}
    raise AssertionError(name)


def test_a_column_without_null_and_default_is_required():
    assert entries(text([Order]), "NewOrder") == {
        "id": "NotRequired[UUID]",
        "user_id": "UUID",
        "status": "NotRequired[str]",
        "total": "int",
        "created_at": "NotRequired[datetime]",
        "updated_at": "NotRequired[datetime]",
        "deleted_at": "NotRequired[datetime | None]",
    }


def test_each_kind_of_column_has_its_type():
    new = entries(text([Everything]), "NewEverything")
    assert new["id"] == "NotRequired[int]"
    assert new["shade"] == "NotRequired[Shade | None]"
    assert new["words"] == "list[str]"
    assert new["shape"] == "NotRequired[dict[str, list[int]] | None]"
    assert new["loose"] == "Any"
    assert new["inet"] == "Any"
    assert new["counted"] == "NotRequired[int]"
    assert new["parent_id"] == "NotRequired[int | None]"
    assert "doubled" not in new


def test_an_update_changes_neither_the_key_nor_the_deletion():
    changes = entries(text([Everything]), "UpdateEverything")
    assert not {"id", "deleted_at", "doubled"} & set(changes)
    assert "class UpdateEverything(TypedDict, total=False):" in text([Everything])


def test_an_update_must_name_the_version_where_rows_have_one():
    class Counted(BaseModel):
        name = TextField()
        version = VersionField()

    written = text([Counted])
    assert "import TYPE_CHECKING, NotRequired, Required, TypedDict\n" in written
    new, _, changes = written.partition("class UpdateCounted")
    assert "    version: NotRequired[int]\n" in new
    assert "    version: Required[int]\n" in changes.partition("class CountedRow")[0]
    assert "    name: str\n" in changes


def test_secrets_are_in_payloads_and_in_no_row():
    assert entries(text([Session]), "NewSession")["provider_access_token"] == "Secret"
    assert not [name for name in entries(text([Session]), "SessionRow") if "token" in name[-5:]]


def test_the_files_of_this_repository_are_up_to_date():
    for path, wanted in files((User, Session, Order), ROOT).items():
        assert not is_stale(path, wanted)
        assert path.read_text() == wanted


@pytest.mark.parametrize("declared", ["typo: Backref[Order]", "typo: 'Backref[Order]'"])
def test_a_back_reference_that_no_foreign_key_makes_is_refused(declared):
    space: dict[str, Any] = {"BaseModel": BaseModel, "Backref": Backref, "Order": Order}
    exec(
        f"class Wrong(BaseModel):\n    {declared}\n    class Meta:\n        table_name = 'w'", space
    )
    with pytest.raises(RegistryError, match=r"Wrong\.typo is declared a Backref"):
        files([space["Wrong"]], ROOT)


def test_a_key_that_no_foreign_key_makes_is_refused():
    class Wrong(BaseModel):
        owner = ForeignKeyField(Everything)
        ownr_id: ForeignKeyId[Any]

        class Meta:
            table_name = "wrong_keys"

    with pytest.raises(RegistryError, match=r"there is: owner_id"):
        files([Wrong], ROOT)


def test_models_from_elsewhere_are_left_out(tmp_path):
    assert files((User, Order), tmp_path) == {}


def test_layout_does_not_make_a_file_stale(tmp_path):
    path = tmp_path / "payloads.py"
    assert is_stale(path, "x = 1\n")
    path.write_text("x   =   1\n\n\n")
    assert not is_stale(path, "x = 1\n")
    path.write_text("x = (\n")
    assert is_stale(path, "x = 1\n")


def test_a_type_inside_a_function_is_refused():
    class Local(Enum):
        ONE = "one"

    class Holder(BaseModel):
        local = EnumField(Local)

        class Meta:
            table_name = "holders"

    with pytest.raises(RegistryError, match="at the top of its module"):
        text([Holder])


def test_two_models_of_one_name_are_refused():
    twin = type("Order", (BaseModel,), {"__module__": __name__})
    with pytest.raises(RegistryError, match="Two models"):
        text([Order, twin])  # type: ignore[list-item]


MODELS = '''
from orm_core import BaseModel, Domain, Service, TextField
from domains.pets.payloads import NewPet, UpdatePet

class Pet(BaseModel):
    name = TextField()
    class Meta:
        table_name = "pets"

class PetsService(Service[Pet, NewPet, UpdatePet]):
    """Pets."""

domain = Domain("pets", models=(Pet,), services=(PetsService,))
'''


@pytest.fixture
def pets(tmp_path, monkeypatch) -> Any:
    folder = tmp_path / "domains" / "pets"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return folder


def run(*arguments: str) -> tuple[int, str]:
    """In a process of its own: what is imported stays imported."""
    command = [sys.executable, "-c", "from orm_core.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_the_command_writes_what_the_service_imports_before_it_is_there(pets, monkeypatch):
    monkeypatch.setenv("ORM_CORE_DOMAINS", "pets")
    code, said = run("types", "generate", "--check")
    assert code == 1, said
    assert "domains/pets/payloads.py" in said
    assert not (pets / "payloads.py").exists()
    assert run("types", "generate") == (0, "Wrote domains/pets/payloads.py.\n")
    assert entries((pets / "payloads.py").read_text(), "NewPet")["name"] == "str"
    assert run("types", "generate", "--check") == (0, "1 file(s), all up to date.\n")


def test_the_command_is_listed():
    assert "types" in CliRunner().invoke(main, ["--help"]).output
