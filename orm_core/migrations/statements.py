"""What a migration file would run, found by running it with a migrator that only takes notes."""

from __future__ import annotations

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
        def note(*_: Any, **__: Any) -> None:
            self.statements.append(f"-- {name}(...), which only a database can tell")

        return note


class _NotesOfDatabase:
    """Stands in for the database of a file that runs SQL on it directly."""

    def __init__(self, notes: _Notes) -> None:
        self._notes = notes

    def execute_sql(self, sql: str, params: Any = None) -> None:
        """Note the statement."""
        self._notes.sql(sql, *(params or ()))

    def commit(self) -> None:
        """Note the end of the file's transaction."""
        self._notes.statements.append("COMMIT")

    def begin(self) -> None:
        """Note the beginning of another."""
        self._notes.statements.append("BEGIN")


def statements(path: Path, direction: Direction) -> list[str]:
    """The statements of one direction. Raises ``MigrationError`` when the file can't be read."""
    scope: dict[str, Any] = {}
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)  # noqa: S102
        function = scope.get(direction)
        notes = _Notes()
        if function is not None:
            function(notes, _NotesOfDatabase(notes), fake=False)
    except Exception as error:
        raise MigrationError(f"{path} can't be read: {type(error).__name__}: {error}") from error
    return notes.statements
