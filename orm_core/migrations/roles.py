"""Least privilege: the SQL of a role that serves, one that migrates and those that only read.

The script runs again without harm, in one transaction, before or after the migrations. It names no
database and no password. Rights are not part of what migrations compare.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from orm_core.errors import InvalidValue
from orm_core.migrations.catalog import HISTORY
from orm_core.migrations.names import qualified, quote, text
from orm_core.models.columns import MAX_NAME_BYTES
from orm_core.models.encrypted import EncryptedField
from orm_core.models.fields import ArrayField, EnumField
from orm_core.models.policies import policies_of

#: what the verbs of services need
_VERBS = "SELECT, INSERT, UPDATE, DELETE"


def roles_sql(
    models: Iterable[Any], *, runtime: str, migrator: str, readers: Sequence[str] = ()
) -> str:
    """The script that makes the roles and gives them their rights on the models' tables.

    ``runtime`` reads and writes rows, ``migrator`` owns the tables, ``readers`` read what is no
    secret. Raises ``InvalidValue`` for names that can't be roles.
    """
    _check([runtime, migrator, *readers])
    tables: dict[Any, None] = {}
    for model in models:
        links = [field.through_model for field in model._meta.manytomany.values()]
        tables |= dict.fromkeys([model, *links])
    return "\n".join(_Script(list(tables), runtime, migrator, readers).lines())


def _check(names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
            raise InvalidValue(f"A role's name has 1 to {MAX_NAME_BYTES} bytes; nothing was made.")
        if not name.isprintable() or name.startswith("pg_") or name in ("public", "none"):
            raise InvalidValue(
                f"{name!r} can't be a role: pg_..., public and none are PostgreSQL's own; nothing "
                "was made."
            )
    if len(set(names)) != len(names):
        raise InvalidValue("Each role has a name of its own; nothing was made.")


class _Script:
    def __init__(
        self, tables: Sequence[Any], runtime: str, migrator: str, readers: Sequence[str]
    ) -> None:
        self._tables = tables
        self._runtime, self._migrator = quote(runtime), quote(migrator)
        self._readers = [quote(one) for one in readers]
        self._names = [runtime, migrator, *readers]
        self._served = ", ".join([self._runtime, *self._readers])

    def lines(self) -> Iterator[str]:
        yield "-- Roles of least privilege. Run this as a superuser, again after each change of the"
        yield "-- models. Roles have no password here; in psql: \\password NAME"
        yield "BEGIN;"
        yield "SET LOCAL lock_timeout = '5s';"
        yield from self._roles()
        yield from self._database()
        for schema in ["public", *sorted({m._meta.schema for m in self._tables} - {None})]:
            yield from self._schema(schema)
        yield from self._history()
        for name in sorted(_enums(self._tables)):
            yield from self._enum(name)
        for model in self._tables:
            yield from self._table(model)
        yield from self._functions()
        yield "COMMIT;"

    def _roles(self) -> Iterator[str]:
        for name in self._names:
            yield from _do(
                f"IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {text(name)}) THEN",
                f"  CREATE ROLE {quote(name)} LOGIN;",
                "END IF;",
            )
        for name in self._names:
            if quote(name) != self._migrator:
                yield from _do(
                    "IF EXISTS (SELECT FROM pg_catalog.pg_roles",
                    f"           WHERE rolname = {text(name)} AND (rolsuper OR rolbypassrls",
                    f"             OR pg_catalog.pg_has_role(oid, {text(self._names[1])}, 'MEMBER')))",
                    "THEN",
                    "  RAISE EXCEPTION 'The role % may do too much: it is a superuser, passes by row '",
                    f"    'security or is a member of %.', {text(name)}, {text(self._names[1])};",
                    "END IF;",
                )

        if any(policies_of(model) for model in self._tables):
            yield "-- Migrations, keys rotate and their like are about all rows, whatever policies say."
            yield f"ALTER ROLE {self._migrator} BYPASSRLS;"

    def _database(self) -> Iterator[str]:
        yield "-- The database. Temporary tables are tables too."
        for verb, rights, ends in (
            ("REVOKE", "CREATE, TEMPORARY", f"FROM PUBLIC, {self._served}"),
            ("GRANT", "CONNECT", f"TO {self._served}"),
            ("GRANT", "CONNECT, CREATE, TEMPORARY", f"TO {self._migrator}"),
        ):
            yield from _do(
                f"EXECUTE '{verb} {rights} ON DATABASE '",
                f"  || pg_catalog.quote_ident(pg_catalog.current_database()) || {text(f' {ends}')};",
            )
        yield "-- What the migrations make from now on, the service may use at once."
        made = f"ALTER DEFAULT PRIVILEGES FOR ROLE {self._migrator} GRANT"
        yield f"{made} {_VERBS} ON TABLES TO {self._runtime};"
        yield f"{made} USAGE ON SEQUENCES TO {self._runtime};"
        yield f"{made} USAGE ON SCHEMAS TO {self._served};"

    def _schema(self, schema: str) -> Iterator[str]:
        name = quote(schema)
        given = (
            f"REVOKE CREATE ON SCHEMA {name} FROM PUBLIC, {self._served};",
            f"GRANT USAGE ON SCHEMA {name} TO {self._served};",
            f"GRANT USAGE, CREATE ON SCHEMA {name} TO {self._migrator};",
        )
        if schema == "public":
            yield from given
            return
        yield from _if_there(
            f"to_regnamespace({text(name)})",
            f"ALTER SCHEMA {name} OWNER TO {self._migrator};",
            *given,
        )

    def _history(self) -> Iterator[str]:
        yield "-- What was applied: the service reads it and can't write it."
        name = qualified(("public", HISTORY))
        yield f"CREATE TABLE IF NOT EXISTS {name} ("
        yield "  id serial NOT NULL PRIMARY KEY,"
        yield "  name varchar(255) NOT NULL,"
        yield "  migrated_at timestamp NOT NULL"
        yield ");"
        yield f"ALTER TABLE {name} OWNER TO {self._migrator};"
        yield f"REVOKE ALL ON TABLE {name} FROM PUBLIC, {self._served};"
        yield f"GRANT SELECT ON TABLE {name} TO {self._runtime};"
        yield from _do(
            f"EXECUTE 'REVOKE ALL ON SEQUENCE ' || pg_catalog.pg_get_serial_sequence("
            f"{text(name)}, 'id')",
            f"  || {text(f' FROM PUBLIC, {self._served}')};",
        )

    def _enum(self, name: str) -> Iterator[str]:
        full = qualified(("public", name))
        yield from _if_there(
            f"to_regtype({text(full)})",
            f"ALTER TYPE {full} OWNER TO {self._migrator};",
            f"GRANT USAGE ON TYPE {full} TO {self._served};",
        )

    def _table(self, model: Any) -> Iterator[str]:
        meta = model._meta
        name = qualified((meta.schema or "public", meta.table_name))
        # Of the audit trail only its triggers write, as its owner.
        kept = getattr(meta, "audit", None) in ("trail", "chain")
        given = [
            f"ALTER TABLE {name} OWNER TO {self._migrator};",
            f"REVOKE ALL ON TABLE {name} FROM PUBLIC, {self._served};",
            f"GRANT {'SELECT' if kept else _VERBS} ON TABLE {name} TO {self._runtime};",
        ]
        for field in meta.sorted_fields:
            if getattr(field, "auto_increment", False) and not kept:
                column = f"{text(name)}, {text(field.column_name)}"
                given += [
                    f"EXECUTE 'GRANT USAGE ON SEQUENCE ' || pg_catalog.pg_get_serial_sequence({column})",
                    f"  || {text(f' TO {self._runtime}')};",
                ]
        shown = ", ".join(quote(one) for one in _shown(model))
        given += [f"GRANT SELECT ({shown}) ON TABLE {name} TO {one};" for one in self._readers]
        yield from _if_there(f"to_regclass({text(name)})", *given)

    def _functions(self) -> Iterator[str]:
        yield "-- Functions of ours act with their owner's rights."
        yield from _do(
            "DECLARE ours pg_catalog.regprocedure;",
            "BEGIN",
            "  FOR ours IN SELECT p.oid FROM pg_catalog.pg_proc AS p",
            "              WHERE p.pronamespace = 'public'::pg_catalog.regnamespace",
            "                AND p.proname ~ '^orm_core_' LOOP",
            f"    EXECUTE 'ALTER FUNCTION ' || ours || {text(f' OWNER TO {self._migrator}')};",
            "  END LOOP;",
            "END;",
        )


def _shown(model: Any) -> Iterator[str]:
    """The columns that hold no part of a secret."""
    secret = {
        part.name
        for field in model._meta.sorted_fields
        if isinstance(field, EncryptedField)
        for part in field.columns
    }
    for field in model._meta.sorted_fields:
        if field.name not in secret:
            yield field.column_name


def _enums(models: Iterable[Any]) -> set[str]:
    fields = (field for model in models for field in model._meta.sorted_fields)
    inner = (one.inner if isinstance(one, ArrayField) else one for one in fields)
    return {one.type_name for one in inner if isinstance(one, EnumField)}


def _if_there(found: str, *statements: str) -> Iterator[str]:
    """What is done to something that the migrations may not have made yet."""
    yield from _do(
        f"IF pg_catalog.{found} IS NOT NULL THEN", *(f"  {one}" for one in statements), "END IF;"
    )


def _do(*lines: str) -> Iterator[str]:
    tag = "$do$"
    while any(tag in line for line in lines):
        tag = f"{tag[:-1]}_$"
    yield f"DO {tag} BEGIN"
    yield from (f"  {line}" for line in lines)
    yield f"END {tag};"
