"""Row-level security: which rows of a table a role sees and writes, held by the server.

::

    class Note(BaseModel):
        tenant_id = UUIDField()
        text = TextField()

        class Meta:
            policies = (Policy("tenant", using=f"tenant_id = {setting('tenant')}::uuid"),)

    with row_scope(tenant=tenant_id):
        NotesService.list()     # the rows of this tenant

A table with policies has row security enabled and forced, so that its owner is bound as well; only
superusers and roles with BYPASSRLS pass it by (PostgreSQL manual, "Row Security Policies").
"""

from __future__ import annotations

# What an author writes is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from orm_core.errors import RegistryError
from orm_core.models.columns import MAX_NAME_BYTES

Command: TypeAlias = Literal["all", "select", "insert", "update", "delete"]

_TEXTS = r"'(?:[^']|'')*'"
#: current_setting() without a second argument
_STRICT = r"(?i)\bcurrent_setting\s*\(\s*''\s*\)"


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of a table, in the model's ``Meta.policies``.

    ``using`` is SQL that holds for rows that may be seen, changed and deleted, ``check`` for rows as
    they are written; without it ``using`` does. ``roles`` are those that it is for, all when empty. A
    row needs one policy that holds, and each ``restrictive`` one. Raises ``RegistryError`` for what
    can be no policy.
    """

    name: str
    using: str | None = None
    check: str | None = None
    command: Command = "all"
    roles: tuple[str, ...] = ()
    restrictive: bool = False

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise RegistryError(f"The policy {self.name!r} {problem}.")

    def _problems(self) -> Iterator[str]:
        if not _is_name(self.name):
            yield f"needs a name of 1 to {MAX_NAME_BYTES} bytes"
        if self.command not in get_args(Command):
            yield f"is for one of: {', '.join(get_args(Command))}"
        if not isinstance(self.roles, tuple) or not all(map(_is_name, self.roles)):
            yield "takes roles as a tuple of their names"
        if self.using is None and self.check is None:
            yield "needs SQL: using=..., or check=... for an INSERT"
        if self.command == "insert" and self.using is not None:
            yield "is for INSERT, which reads no rows: it takes check=... only"
        if self.command in ("select", "delete") and self.check is not None:
            yield f"is for {self.command.upper()}, which writes no row: it takes using=... only"
        if self.using is None and self.check is not None and self.command != "insert":
            yield "would show all rows: it needs using=... beside check=..."
        for sql in (self.using, self.check):
            if sql is None:
                continue
            if not isinstance(sql, str) or not sql.strip() or "\0" in sql:
                yield "takes its conditions as SQL text"
            elif re.search(_STRICT, re.sub(_TEXTS, "''", sql)):
                yield (
                    "calls current_setting(name), which fails where nothing is set; write "
                    "setting(name), or nullif(current_setting(name, true), '')"
                )

    def create_sql(self, table: str) -> str:
        """CREATE POLICY on a table, given as SQL."""
        kind = "RESTRICTIVE" if self.restrictive else "PERMISSIVE"
        roles = ", ".join(map(_quoted, self.roles)) or "PUBLIC"
        using = "" if self.using is None else f" USING ({self.using})"
        check = "" if self.check is None else f" WITH CHECK ({self.check})"
        return (
            f"CREATE POLICY {_quoted(self.name)} ON {table} AS {kind} FOR {self.command.upper()} "
            f"TO {roles}{using}{check}"
        )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name.encode()) <= MAX_NAME_BYTES and "\0" not in name


def policies_of(model: Any) -> tuple[Policy, ...]:
    """The policies that a model declares. Raises ``RegistryError`` for what are none."""
    declared: Any = getattr(model._meta, "policies", ())
    if not isinstance(declared, tuple):
        raise _no_policies(model)
    given = cast("tuple[Any, ...]", declared)
    found = [one for one in given if isinstance(one, Policy)]
    if len(found) != len(given):
        raise _no_policies(model)
    if len({one.name for one in found}) != len(found):
        raise RegistryError(f"{model.__name__} has two policies of one name.")
    return tuple(found)


def _no_policies(model: Any) -> RegistryError:
    return RegistryError(f"{model.__name__}.Meta.policies is a tuple of Policy(...).")


def enable_sql(model: Any) -> Iterator[str]:
    """The statement that hides all rows but those that a policy shows."""
    if policies_of(model):
        yield f"ALTER TABLE {_table(model)} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"


def policies_sql(model: Any) -> Iterator[str]:
    """The statements that make a model's policies; those of the same names are replaced."""
    for policy in policies_of(model):
        yield f"DROP POLICY IF EXISTS {_quoted(policy.name)} ON {_table(model)}"
        yield policy.create_sql(_table(model))


def _table(model: Any) -> str:
    parts = (model._meta.schema, model._meta.table_name)
    return ".".join(_quoted(part) for part in parts if part)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
