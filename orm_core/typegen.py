"""TypedDicts of a domain's payloads and rows, written from its models.

``orm-core types generate`` writes ``payloads.py`` beside the models: for each model ``NewUser``
(what ``create`` takes), ``UpdateUser`` (what ``update`` takes) and ``UserRow`` (what ``to_dict``
gives). The file imports nothing when the program runs, so a stale one breaks nothing.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import inspect
import re
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from orm_core.errors import RegistryError
from orm_core.models.audit_log import AuditEntry
from orm_core.models.base import BaseModel
from orm_core.models.entries import Entry, change_entries, new_entries, row_entries

FILE_NAME: Final = "payloads.py"

_HEAD = '''"""Payloads and rows of these models, written by `orm-core types generate`: do not edit."""

from __future__ import annotations

'''


def files(models: Iterable[type[BaseModel]], within: Path) -> dict[Path, str]:
    """The path and text of each file, for the models whose source is in the folder ``within``.

    Models installed from elsewhere have theirs already, and those of orm_core need none. Raises ``RegistryError`` when two models
    beside each other have one name, a type is not at the top of a module, or a model declares a
    ``Backref`` or ``ForeignKeyId`` that no foreign key makes.
    """
    folders: dict[Path, list[type[BaseModel]]] = {}
    for model in models:
        if model is AuditEntry:  # ours, wherever we are installed
            continue
        _check_declarations(model)
        source = getattr(sys.modules[model.__module__], "__file__", None)
        folder = Path(source).resolve().parent if source else None
        ours = model.__module__.startswith("orm_core.")
        if folder is not None and folder.is_relative_to(within.resolve()) and not ours:
            folders.setdefault(folder, []).append(model)
    return {folder / FILE_NAME: text(sorted(some, key=_name)) for folder, some in folders.items()}


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads an empty module in place of each file of ours, whose names are all ``dict``."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002
        if not fullname.endswith(f".{Path(FILE_NAME).stem}"):
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        if found is not None and (
            found.origin is None or not Path(found.origin).read_text().startswith(_HEAD)
        ):
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: Any) -> None:
        def stand_in(_: str) -> type:
            return dict

        module.__getattr__ = stand_in


@contextmanager
def without_files() -> Generator[None]:
    """A block in which models can be imported although a file of ours is missing or stale."""
    finder = _StandIns()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def is_stale(path: Path, generated: str) -> bool:
    """Whether the file is missing or says something else; its layout does not matter."""
    if not path.exists():
        return True
    try:
        return ast.dump(ast.parse(path.read_text())) != ast.dump(ast.parse(generated))
    except SyntaxError:
        return True


def text(models: Iterable[type[BaseModel]]) -> str:
    """The text of a file with the types of these models."""
    imports: dict[str, set[str]] = {"typing": {"TypedDict"}}
    classes: dict[str, str] = {}
    for model in models:
        for name, written in _classes(model, imports):
            if name in classes:
                raise RegistryError(
                    f"Two models of one folder are named {model.__name__}; {name} can't be both."
                )
            classes[name] = written
    runtime = f"from typing import {', '.join(sorted(imports.pop('typing')))}\n"
    needed = "".join(_import_lines(imports))
    if needed:
        runtime = runtime.replace("import ", "import TYPE_CHECKING, ", 1)
        needed = f"\nif TYPE_CHECKING:\n{needed}"
    return _HEAD + runtime + needed + "".join(f"\n\n{one}" for one in classes.values())


def _check_declarations(model: Any) -> None:
    """What a model declares for checkers only must be there when the program runs."""
    made = {
        "Backref": {key.backref for key in model._meta.backrefs},
        "ForeignKeyId": {key.object_id_name for key in model._meta.refs},
    }
    declared: dict[str, Any] = inspect.get_annotations(model)
    for name, annotation in declared.items():
        for kind, names in made.items():
            if re.match(rf"['\"]?(\w+\.)*{kind}\[", str(annotation)) and name not in names:
                known = ", ".join(sorted(names)) or "none"
                raise RegistryError(
                    f"{model.__name__}.{name} is declared a {kind}, but no registered foreign key "
                    f"makes it; there is: {known}."
                )


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _import_lines(imports: dict[str, set[str]]) -> Iterator[str]:
    """One line a module; the standard library's first, a blank line, then the others."""
    standard = sorted(name for name in imports if name.partition(".")[0] in sys.stdlib_module_names)
    others = sorted(set(imports) - set(standard))
    for place, group in enumerate((standard, others)):
        yield "\n" if place and standard and others else ""
        for module in group:
            yield f"    from {module} import {', '.join(sorted(imports[module]))}\n"


def _classes(model: type[BaseModel], imports: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    name = model.__name__
    new, changes, row = new_entries(model), change_entries(model), row_entries(model)
    yield f"New{name}", _class(f"New{name}", f"What ``create`` takes for ``{name}``.", new, imports)
    about = f"What ``update`` takes for ``{name}``."
    yield f"Update{name}", _class(f"Update{name}", about, changes, imports, total=False)
    about = f"The values of ``{name}``, without its secrets."
    always = [Entry(one.name, one.field, one.type, one.nullable, required=True) for one in row]
    yield f"{name}Row", _class(f"{name}Row", about, always, imports)


def _class(
    name: str,
    about: str,
    entries: Iterable[Entry],
    imports: dict[str, set[str]],
    *,
    total: bool = True,
) -> str:
    lines = [
        f"class {name}(TypedDict{'' if total else ', total=False'}):",
        f'    """{about}"""',
        "",
    ]
    for entry in entries:
        written = _annotation(entry.type, imports)
        if entry.nullable and entry.type is not Any:
            written += " | None"
        if total is not entry.required:
            word = "NotRequired" if total else "Required"
            imports["typing"].add(word)
            written = f"{word}[{written}]"
        lines.append(f"    {entry.name}: {written}")
    return "\n".join(lines) + "\n"


def _annotation(kind: Any, imports: dict[str, set[str]]) -> str:
    """A type as source, noting what it needs imported."""
    origin = get_origin(kind)
    if origin is not None:
        items = ", ".join(_annotation(item, imports) for item in get_args(kind))
        return f"{_annotation(origin, imports)}[{items}]"
    if kind is Any:
        imports["typing"].add("Any")
        return "Any"
    if kind is None or kind is type(None):
        return "None"
    module, name = kind.__module__, kind.__qualname__
    if module == "builtins":
        return str(name)
    if "<locals>" in name:
        raise RegistryError(f"{name} must be at the top of its module to be imported by name.")
    module = "orm_core" if module.startswith("orm_core.") else module
    imports.setdefault(module, set()).add(name.partition(".")[0])
    return str(name)
