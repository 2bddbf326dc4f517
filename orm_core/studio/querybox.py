"""The query box: one SELECT in a read-only transaction, with limits on time and rows.

The text becomes a cursor inside PostgreSQL (``OPEN .. FOR EXECUTE``), which takes exactly one
statement that answers rows: no second one after a semicolon, no COMMIT, no SET. The transaction
is read-only, is always rolled back, and its connection is closed, so nothing stays of it.

Before it runs, the server's own plan tells which columns it reads. One that reads a secret is
refused, whatever view or alias it comes through; ``IS NOT NULL`` of one is fine. Functions that
run SQL of their own, or read files, are refused by name; functions that a database defines itself
are not looked into.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from orm_core.database.database import Database
from orm_core.errors import InvalidValue
from orm_core.studio.reader import TIME_LIMIT, reader_of
from orm_core.studio.tables import Tables

MAX_ROWS: Final = 500
MAX_LENGTH: Final = 20_000
#: characters of a value that is shown
MAX_CELL: Final = 500
HISTORY: Final = 30

#: functions that run SQL given as text, or read what is outside of the tables
_REFUSED: Final = re.compile(
    r"\b(?:(?:query|table|schema|database|cursor)_to_xml\w*|dblink\w*|ts_stat|ts_rewrite"
    r"|pg_read_\w+|pg_ls_\w+|pg_stat_file|lo_(?:get|put|open|import|export|unlink|from_bytea|creat\w*)"
    r"|loread|lowrite|crosstab\w*|connectby\w*"
    r"|xpath_table|pg_stats\w*|pg_statistic\w*|pg_terminate_backend|pg_cancel_backend"
    r"|pg_advisory\w*|pg_try_advisory\w*|pg_logical\w*|pg_reload_conf|pg_rotate_logfile)\b",
    re.IGNORECASE,
)
#: the types' numbers in pg_type: int8, int2, int4, float4, float8, numeric
_NUMBERS: Final = (20, 21, 23, 700, 701, 1700)
_WHOLE_ROW = re.compile(r'[\w"]\.\*')
_OPEN = """
    DO $$ DECLARE studio refcursor := 'studio';
    BEGIN OPEN studio FOR EXECUTE current_setting('orm_core.query'); END $$
"""
#: plan nodes whose rows come from their children as they are, so that these name the columns
_PASSED_ON: Final = ("Append", "Merge Append", "SetOp", "Recursive Union", "Subquery Scan")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query answered; ``cut`` says that there was more."""

    columns: list[str]
    #: whether each column holds numbers
    numeric: list[bool]
    rows: list[list[str | None]]
    cut: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a plan, ``depth`` steps below the top. Times are in milliseconds."""

    depth: int
    title: str
    detail: str
    rows: int
    planned: int
    milliseconds: float
    share: float


class QueryBox:
    """Runs queries that people type, and remembers them until the studio ends."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._secrets = [
            name for table in tables for name in _secret_names(table.model._meta.sorted_fields)
        ]
        self._tables = {
            table.model._meta.table_name
            for table in tables
            if any(column.is_secret for column in table.columns)
        }
        self._lock = threading.Lock()
        self._history: deque[str] = deque(maxlen=HISTORY)

    @property
    def history(self) -> list[str]:
        """The queries that ran, the latest first."""
        with self._lock:
            return list(self._history)

    def run(self, text: str) -> Answer:
        """The first rows of a query. Raises ``InvalidValue`` and what the server says."""
        with _Session(self._database) as session:
            sql = self._checked(session, text)
            started = time.perf_counter()
            columns, rows = session.rows(sql, MAX_ROWS + 1)
        self._remember(sql)
        seconds = time.perf_counter() - started
        shown = [[_shown(value) for value in row] for row in rows[:MAX_ROWS]]
        names = [one.name for one in columns]
        numeric = [one.type_code in _NUMBERS for one in columns]
        return Answer(names, numeric, shown, len(rows) > MAX_ROWS, seconds)

    def explain(self, text: str) -> list[Step]:
        """The plan of a query, with what each step really took; the query is run."""
        with _Session(self._database) as session:
            sql = self._checked(session, text)
            _, rows = session.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", 1)
        self._remember(sql)
        top = rows[0][0][0]["Plan"]
        return list(_steps(top, 0, max(_time(top), 0.001)))

    def _remember(self, sql: str) -> None:
        with self._lock:
            if sql in self._history:
                self._history.remove(sql)
            self._history.appendleft(sql)

    # -- what may run -----------------------------------------------------------------------

    def _checked(self, session: _Session, text: str) -> str:
        sql = text.strip().rstrip(";").strip()
        if not sql:
            raise InvalidValue("Write a SELECT, such as: SELECT count(*) FROM users.")
        if len(sql) > MAX_LENGTH:
            raise InvalidValue(f"The query box takes at most {MAX_LENGTH:,} characters.")
        if "\0" in sql:
            raise InvalidValue("A query with a NUL character can't be sent to PostgreSQL.")
        _, rows = session.rows(f"EXPLAIN (VERBOSE, FORMAT JSON) {sql}", 1)
        self._refuse_secrets(rows[0][0][0]["Plan"])
        session.rows(sql, 0)  # EXPLAIN takes some that are no questions: CREATE TABLE .. AS
        return sql

    def _refuse_secrets(self, plan: dict[str, Any]) -> None:
        reads_secret_table = False
        texts: list[str] = []
        for node, parent in _nodes(plan, None):
            if node.get("Relation Name") in self._tables:
                reads_secret_table = True
            if refused := _REFUSED.search(" ".join(map(str, node.values()))):
                raise InvalidValue(
                    f"The query box does not run {refused[0]}: it reaches past the tables' rows."
                )
            texts += _expressions(node, parent)
        for name in self._secrets:
            word = rf'(?<![\w"])"?{re.escape(name)}"?(?![\w"])'
            null_test = re.compile(rf"(?:[\w\"]+\.)?{word}\)? IS (?:NOT )?NULL")
            used = re.compile(word)
            if any(used.search(null_test.sub("", text)) for text in texts):
                raise InvalidValue(
                    f"The query reads {name}, which is secret and never leaves the database. Name "
                    f"the columns that you want; {name} IS NOT NULL tells whether there is one."
                )
        if reads_secret_table and any(_WHOLE_ROW.search(text) for text in texts):
            raise InvalidValue(
                "The query takes whole rows of a table that has secrets, which never leave the "
                "database. Name the columns that you want."
            )


def _secret_names(fields: list[Any]) -> Iterator[str]:
    for one in fields:
        if getattr(one, "secret", False):
            yield one.column_name


class _Session:
    """A connection for one query: read-only, with a time limit, thrown away afterwards."""

    def __init__(self, database: Database) -> None:
        self._database = reader_of(database, TIME_LIMIT)

    def __enter__(self) -> _Session:
        self._transaction = self._database.transaction(read_only=True)
        self._transaction.__enter__()
        # Workers would only hide which step took the time.
        self._database.execute_sql("SET LOCAL max_parallel_workers_per_gather = 0")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._transaction.__exit__(_Done, _Done(), None)
        finally:
            self._database.close_all()

    def rows(self, sql: str, limit: int) -> tuple[list[Any], list[Any]]:
        """The columns and the first rows of one statement."""
        database = self._database
        database.execute_sql("SELECT set_config('orm_core.query', %s, true)", (sql,))
        database.execute_sql(_OPEN)
        try:
            cursor = database.execute_sql(f"FETCH {limit} FROM studio")
            return list(cursor.description or ()), cursor.fetchall()
        finally:
            if not database.transaction_failed():
                database.execute_sql("CLOSE studio")


class _Done(Exception):
    """Has the transaction roll back."""


def _nodes(
    node: dict[str, Any], parent: dict[str, Any] | None
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    yield node, parent
    for child in node.get("Plans", ()):
        yield from _nodes(child, node)


def _expressions(node: dict[str, Any], parent: dict[str, Any] | None) -> Iterator[str]:
    """What a plan's node works with.

    A scan below another step may list columns that nobody uses, as reading a row whole is cheaper
    (PostgreSQL, ``use_physical_tlist``); what is used stands in the step above.
    """
    for name, value in node.items():
        if name == "Plans" or not isinstance(value, str | list):
            continue
        texts = cast("list[Any]", value) if isinstance(value, list) else [value]
        if name == "Output" and "Relation Name" in node and _may_list_all(node, parent):
            texts = [text for text in texts if not re.fullmatch(r'[\w".]+', str(text))]
        yield from map(str, texts)


def _may_list_all(node: dict[str, Any], parent: dict[str, Any] | None) -> bool:
    return (
        parent is not None
        and parent.get("Node Type") not in _PASSED_ON
        and node.get("Parent Relationship") in ("Outer", "Inner")
    )


def _time(node: dict[str, Any]) -> float:
    return float(node.get("Actual Total Time", 0.0)) * int(node.get("Actual Loops", 1))


def _steps(node: dict[str, Any], depth: int, total: float) -> Iterator[Step]:
    where = node.get("Relation Name") or node.get("CTE Name") or node.get("Function Name")
    index = node.get("Index Name")
    title = str(node["Node Type"]) + (f" on {where}" if where else "")
    details = [f"using {index}"] if index else []
    details += [
        f"{name.lower()}: {node[name]}"
        for name in (
            "Index Cond",
            "Hash Cond",
            "Merge Cond",
            "Join Filter",
            "Filter",
            "Recheck Cond",
        )
        if name in node
    ]
    if isinstance(node.get("Sort Key"), list):
        details.append(f"by {', '.join(node['Sort Key'])}")
    if node.get("Rows Removed by Filter"):
        details.append(f"{node['Rows Removed by Filter']:,} rows passed over")
    below = sum(map(_time, node.get("Plans", ())))
    own = max(_time(node) - below, 0.0)
    rows = int(node.get("Actual Rows", 0)) * int(node.get("Actual Loops", 1))
    yield Step(
        depth, title, " · ".join(details), rows, int(node.get("Plan Rows", 0)), own, own / total
    )
    for child in node.get("Plans", ()):
        yield from _steps(child, depth + 1, total)


def _shown(value: Any) -> str | None:
    from orm_core.studio.values import plain

    if value is None:
        return None
    text = "(binary)" if isinstance(value, memoryview) else plain(value)
    return text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}…"
