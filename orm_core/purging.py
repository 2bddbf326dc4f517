"""Purge: soft-deleted rows that are past their retention are removed for good.

::

    domain = Domain("orders", models=(Order,), retention=timedelta(days=90))

    report = purge(registry)            # orm-core purge
    purge([orders], older_than=timedelta(days=30), dry_run=True)

A row goes when it was deleted longer ago than its domain says, and no row that stays refers to it,
whatever the reference says for ON DELETE. Rows that refer to each other go together. The others
are kept and told. Each batch is a transaction, so it may be stopped and run again; several may run
at once.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from orm_core import peewee_facade as peewee
from orm_core.database.transactions import Transaction
from orm_core.domain import Domain
from orm_core.erasure import owns_secrets
from orm_core.errors import ForeignKeyViolation, InvalidValue, TransactionError
from orm_core.models.batches import quoted, sql_type, table_of
from orm_core.models.identifiers import utcnow
from orm_core.models.owners import TABLE, owner_name, owners_of
from orm_core.models.row_security import refuse_hidden_rows
from orm_core.models.soft_delete import is_soft

logger: logging.Logger = logging.getLogger("orm_core.purging")

BATCH: Final = 1000
#: what keeps a row that somebody else is changing, or whose referring rows are
BUSY: Final = "held by others"


@dataclass
class PurgedTable:
    """What became of the rows of a table that are past their retention."""

    table: str
    #: removed for good, or to be by a run that is not dry
    rows: int = 0
    #: rows that stay, by the column that refers to them, or ``BUSY``
    kept: Counter[str] = field(default_factory=Counter[str])


@dataclass
class PurgeReport:
    """What ``purge`` did, or would do."""

    tables: list[PurgedTable] = field(default_factory=list[PurgedTable])
    #: data keys of owners that are no more
    data_keys: int = 0

    @property
    def rows(self) -> int:
        """How many rows there were in all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def kept(self) -> int:
        """How many rows past their retention stay."""
        return sum(table.kept.total() for table in self.tables)


def purge(
    domains: Domain | Iterable[Domain],
    *,
    older_than: timedelta | None = None,
    dry_run: bool = False,
    batch: int = BATCH,
) -> PurgeReport:
    """Remove soft-deleted rows of these domains (a registry: of all) that are past their retention.

    ``older_than`` stands in for the retention of all of them; without it, domains that have none
    are passed over. ``batch`` rows and what refers to them are one transaction. Raises
    ``TransactionError`` inside a transaction, ``InvalidValue`` for arguments that make no sense,
    ``InsufficientPrivilege`` when row security hides rows from this role.
    """
    chosen = [domains] if isinstance(domains, Domain) else list(domains)
    _check(chosen, older_than, batch)
    now, run = utcnow(), _Run(dry_run, batch)
    for domain in chosen:
        age = domain.retention if older_than is None else older_than
        if age is not None:
            run.cutoffs |= {model: now - age for model in domain.models if is_soft(model)}
    # What refers comes before what it refers to, so that little is left to go together.
    for model in run.cutoffs:
        if not _has_one_key(model):
            raise InvalidValue(
                f"{_name(model)} has a key of several columns: purge() can't do that."
            )
    models = list(reversed(peewee.sort_models(list(run.cutoffs))))
    if any(model._meta.database.in_transaction() for model in models):
        raise TransactionError("purge() commits batch by batch: call it outside a transaction.")
    for model in {*models, *(key.model for one in models for key in one._meta.backrefs)}:
        refuse_hidden_rows(model)  # a row that is not seen keeps nothing
    for model in models:
        run.table(model)
    for model in run.cutoffs:
        if owns_secrets(model):
            run.sweep_keys(model)
    return run.report


def _check(domains: Collection[Any], older_than: Any, batch: Any) -> None:
    if not all(isinstance(domain, Domain) for domain in domains):
        raise InvalidValue("purge() takes a registry, or domains.")
    if older_than is not None and (
        not isinstance(older_than, timedelta) or older_than < timedelta()
    ):
        raise InvalidValue("older_than must be a timedelta, and not negative.")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InvalidValue("A batch has one row or more.")


@dataclass
class _Run:
    """One call of ``purge``."""

    dry_run: bool
    batch: int
    cutoffs: dict[Any, datetime] = field(default_factory=dict[Any, datetime])
    report: PurgeReport = field(default_factory=PurgeReport)
    tables: dict[Any, PurgedTable] = field(default_factory=dict[Any, PurgedTable])

    def told(self, model: Any) -> PurgedTable:
        if model not in self.tables:
            self.tables[model] = PurgedTable(_name(model))
            self.report.tables.append(self.tables[model])
        return self.tables[model]

    def table(self, model: Any) -> None:
        """All batches of a model, in the order of their keys."""
        told, primary = self.told(model), model._meta.primary_key
        query = model.only_deleted().where(model.deleted_at < self.cutoffs[model])
        query = query.select(primary).order_by(primary).limit(self.batch).tuples()
        keys = [primary.db_value(key) for (key,) in query]
        while keys:
            self.rows(model, keys)
            logger.info("%s: %d rows purged, %d kept", told.table, told.rows, told.kept.total())
            if len(keys) < self.batch:
                break
            keys = [primary.db_value(key) for (key,) in query.where(primary > keys[-1])]

    def rows(self, model: Any, keys: list[Any]) -> None:
        """One transaction; where a table that no model knows refers to a row, one for each row."""
        try:
            with Transaction(model._meta.database, "read committed"):
                group = _Group(self.cutoffs, locking=not self.dry_run)
                group.gather(model, keys)
                gone = {} if self.dry_run else group.delete(model._meta.database)
        except ForeignKeyViolation as error:
            if len(keys) == 1:
                self.told(model).kept[error.table or "another table"] += 1
                return
            half = len(keys) // 2
            self.rows(model, keys[:half])
            self.rows(model, keys[half:])
            return
        told = self.told(model)
        told.kept.update(group.kept[model, key] for key in keys if (model, key) in group.kept)
        if self.dry_run:
            going = group.chosen[model].intersection(keys)
            told.rows += sum((model, key) not in group.kept for key in going)
        for one, count in gone.items():
            self.told(one).rows += count

    def sweep_keys(self, model: Any) -> None:
        """Data keys of owners that were removed, here or by ``hard_delete``."""
        prefix = owners_of(model)
        key = quoted(model._meta.primary_key.column_name)
        orphans = (
            f"SELECT k.id FROM {TABLE} k WHERE left(k.id, %s) = %s AND NOT EXISTS ("
            f"SELECT FROM {table_of(model)} o WHERE %s || o.{key}::text = k.id)"
        )
        values = (len(prefix), prefix, prefix)
        database = model._meta.database
        if self.dry_run:
            self.report.data_keys += len(database.execute_sql(orphans, values).fetchall())
            return
        sql = f"DELETE FROM {TABLE} WHERE id IN ({orphans} FOR UPDATE SKIP LOCKED)"
        self.report.data_keys += database.execute_sql(sql, values).rowcount


class _Group:
    """Rows of a batch and the rows past their retention that refer to them, to go together.

    They are locked before they are looked at, and nobody can refer anew to a row that is locked:
    what is found holds until the transaction ends.
    """

    def __init__(self, cutoffs: Mapping[Any, datetime], *, locking: bool) -> None:
        self._cutoffs = cutoffs
        self._lock = " FOR UPDATE SKIP LOCKED" if locking else ""
        #: rows that are past their retention, by model
        self.chosen: dict[Any, set[Any]] = {}
        #: rows that stay, and what keeps them
        self.kept: dict[tuple[Any, Any], str] = {}
        #: for a row, those that it refers to, and by which column
        self._above: dict[tuple[Any, Any], list[tuple[Any, Any, str]]] = {}

    def gather(self, model: Any, keys: Collection[Any]) -> None:
        """Choose the rows with these keys, and what refers to them in turn."""
        held = set(keys) - self._choose(model, keys)
        self.kept |= {(model, key): BUSY for key in self._still_there(model, held)}
        waiting = [(model, self.chosen[model].copy())]
        while waiting:
            parent, some = waiting.pop()
            for reference in parent._meta.backrefs:
                found = self._refer(reference, parent, some)
                if found:
                    waiting.append((reference.model, found))
        self._keep_what_the_kept_refer_to()

    def _choose(self, model: Any, keys: Collection[Any]) -> set[Any]:
        """Lock rows that are past their retention; answers those that were not chosen before."""
        chosen = self.chosen.setdefault(model, set())
        new = set(keys) - chosen
        found = self._past(model, new, self._lock)
        chosen |= found
        return found

    def _still_there(self, model: Any, keys: Collection[Any]) -> set[Any]:
        return self._past(model, keys, "")

    def _past(self, model: Any, keys: Collection[Any], lock: str) -> set[Any]:
        if not keys:
            return set()
        where, values = self._where(model, "r", keys)
        key = f"r.{quoted(model._meta.primary_key.column_name)}"
        sql = f"SELECT {key} FROM {table_of(model)} r WHERE {where} ORDER BY {key}{lock}"
        return _keys(model, model._meta.database.execute_sql(sql, values))

    def _where(self, model: Any, alias: str, keys: Collection[Any]) -> tuple[str, list[Any]]:
        primary = model._meta.primary_key
        deleted = quoted(model._meta.fields["deleted_at"].column_name)
        where = (
            f"{alias}.{quoted(primary.column_name)} = ANY(%s::{sql_type(primary)}[]) "
            f"AND {alias}.{deleted} < %s"
        )
        return where, [sorted(keys), self._cutoffs[model]]

    def _refer(self, reference: Any, parent: Any, keys: set[Any]) -> set[Any]:
        """Rows that refer to these by one foreign key: chosen, or they keep what they refer to."""
        model, label = reference.model, f"{_name(reference.model)}.{reference.column_name}"
        primary = model._meta.primary_key
        past = "false"
        values: list[Any] = []
        if model in self._cutoffs:
            past = f"coalesce(c.{quoted(model._meta.fields['deleted_at'].column_name)} < %s, false)"
            values = [self._cutoffs[model]]
        above = f"p.{quoted(parent._meta.primary_key.column_name)}"
        # A composite key has no column: such rows are told apart by nothing, and never chosen.
        own = f"c.{quoted(primary.column_name)}" if _has_one_key(model) else "NULL"
        joined = (
            f"FROM {table_of(model)} c JOIN {table_of(parent)} p "
            f"ON c.{quoted(reference.column_name)} = p.{quoted(reference.rel_field.column_name)} "
            f"WHERE {above} = ANY(%s::{sql_type(parent._meta.primary_key)}[])"
        )
        execute = model._meta.database.execute_sql
        sql = f"SELECT DISTINCT {above} {joined} AND NOT {past}"
        for key in _keys(parent, execute(sql, [sorted(keys), *values])):
            self.kept.setdefault((parent, key), label)
        free = sorted(key for key in keys if (parent, key) not in self.kept)
        if model not in self._cutoffs or not free:
            return set()
        sql = f"SELECT {above}, {own} {joined} AND {past}"
        pairs = [
            (parent._meta.primary_key.db_value(one), primary.db_value(other))
            for one, other in execute(sql, [free, *values]).fetchall()
        ]
        found = self._choose(model, {other for _, other in pairs})
        for one, other in pairs:
            if other in self.chosen[model]:
                self._above.setdefault((model, other), []).append((parent, one, label))
            else:
                self.kept.setdefault((parent, one), BUSY)
        return found

    def _keep_what_the_kept_refer_to(self) -> None:
        waiting = list(self.kept)
        while waiting:
            for parent, key, label in self._above.get(waiting.pop(), ()):
                if (parent, key) not in self.kept:
                    self.kept[parent, key] = label
                    waiting.append((parent, key))

    def delete(self, database: Any) -> dict[Any, int]:
        """Remove what is not kept, in one statement, so that rows may refer to each other."""
        going = {
            model: [key for key in sorted(keys) if (model, key) not in self.kept]
            for model, keys in self.chosen.items()
        }
        models = [model for model, keys in going.items() if keys]
        if not models:
            return {}
        parts: list[str] = []
        values: list[Any] = []
        for place, model in enumerate(models):
            where, given = self._where(model, "r", going[model])
            key = quoted(model._meta.primary_key.column_name)
            parts.append(
                f"d{place} AS (DELETE FROM {table_of(model)} r WHERE {where} "
                f"RETURNING r.{key}::text AS key)"
            )
            values += given
        told = " UNION ALL ".join(
            f"SELECT {place}, key FROM d{place}" for place in range(len(models))
        )
        rows = database.execute_sql(f"WITH {', '.join(parts)} {told}", values).fetchall()
        _delete_keys(database, ((models[place], key) for place, key in rows))
        return {models[place]: count for place, count in Counter(p for p, _ in rows).items()}


def _delete_keys(database: Any, rows: Iterable[tuple[Any, str]]) -> None:
    """Remove the data keys of rows; one that a writer holds is left to the next run."""
    names = [owner_name(model, key) for model, key in rows if owns_secrets(model)]
    if names:
        database.execute_sql(
            f"DELETE FROM {TABLE} WHERE id IN (SELECT id FROM {TABLE} "
            "WHERE id = ANY(%s::text[]) FOR UPDATE SKIP LOCKED)",
            (names,),
        )


def _name(model: Any) -> str:
    meta = model._meta
    return f"{meta.schema}.{meta.table_name}" if meta.schema else str(meta.table_name)


def _has_one_key(model: Any) -> bool:
    return len(model._meta.get_primary_keys()) == 1


def _keys(model: Any, cursor: Any) -> set[Any]:
    primary = model._meta.primary_key
    return {primary.db_value(key) for (key,) in cursor.fetchall()}
