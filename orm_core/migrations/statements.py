"""What a migration file would run, found by running it with a migrator that only takes notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from orm_core.errors import MigrationError

Direction: TypeAlias = Literal["migrate", "rollback"]


class _Notes:
    """Stands in for peewee-migrate's Migrator; writes down what is asked of it."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def sql(self, sql: str, *params: Any) -> None:
        text = sql if params else sql.replace("%%", "%")
        lines = [line.rstrip() for line in text.strip("\n").splitlines()]
        margin = min((len(one) - len(one.lstrip()) for one in lines if one.strip()), default=0)
        self.statements.append("\n".join(line[margin:] for line in lines).strip())
        if params:
            self.statements[-1] += f" -- with {len(params)} parameter(s)"

    def __getattr__(self, name: str) -> Any:
        def note(*_: Any, **__: Any) -> _Nothing:
            self.statements.append(f"-- {name}(...), which only a database can tell")
            return _Nothing()

        return note


class _Nothing:
    """What a statement that was not run answers: no rows, and nothing of anything else."""

    rowcount = 0

    def __init__(self, database: _NotesOfDatabase | None = None) -> None:
        self._database = database

    def _looked_at(self) -> None:
        if self._database is not None:
            self._database.asked = True

    def fetchone(self) -> None:
        """No row."""
        self._looked_at()

    def fetchall(self) -> list[Any]:
        """No rows."""
        self._looked_at()
        return []

    def __getattr__(self, name: str) -> Any:
        self._looked_at()

        def nothing(*_: Any, **__: Any) -> _Nothing:
            return _Nothing(self._database)

        return nothing

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _NotesOfDatabase:
    """Stands in for the database of a file that runs SQL on it directly."""

    def __init__(self, notes: _Notes) -> None:
        self._notes = notes
        #: whether the file looked at what a statement answers
        self.asked = False

    def execute_sql(self, sql: str, params: Any = None) -> _Nothing:
        """Note the statement."""
        self._notes.sql(sql, *(params or ()))
        return _Nothing(self)

    def commit(self) -> None:
        """Note the end of the file's transaction."""
        self._notes.statements.append("COMMIT")

    def begin(self) -> None:
        """Note the beginning of another."""
        self._notes.statements.append("BEGIN")

    def __getattr__(self, name: str) -> Any:
        noted = getattr(self._notes, name)

        def call(*given: Any, **options: Any) -> _Nothing:
            noted(*given, **options)
            return _Nothing(self)

        return call


def statements(path: Path, direction: Direction) -> list[str]:
    """The statements of one direction. Raises ``MigrationError`` when the file can't be read.

    Of a file that looks at the database's answers, those up to there.
    """
    scope: dict[str, Any] = {}
    notes = _Notes()
    database = _NotesOfDatabase(notes)
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)  # noqa: S102
        function = scope.get(direction)
        if function is not None:
            function(notes, database, fake=False)
    except Exception as error:
        if not database.asked:
            raise MigrationError(
                f"{path} can't be read: {type(error).__name__}: {error}"
            ) from error
    if database.asked:
        notes.statements.append("-- what follows depends on what the database answers")
    return notes.statements
