"""``orm-core``: the root command and what all commands share.

Exit codes: 0 done, 1 a problem (one paragraph on stderr), 2 wrong usage.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

#: command -> module that defines it under the same name
_COMMANDS = {
    "audit": "orm_core.cli.audit",
    "db": "orm_core.cli.db",
    "demo": "orm_core.cli.demo",
    "doctor": "orm_core.cli.doctor",
    "erase": "orm_core.cli.erase",
    "keys": "orm_core.cli.keys",
    "metrics": "orm_core.cli.metrics",
    "migrate": "orm_core.cli.migrate",
    "purge": "orm_core.cli.purge",
    "seed": "orm_core.cli.seed",
    "studio": "orm_core.cli.studio",
    "types": "orm_core.cli.types",
}


class _LazyGroup(click.Group):
    """Loads a command's module when it is used, and turns our errors into one paragraph."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        from orm_core.errors import OrmCoreError

        try:
            return super().invoke(ctx)
        except OrmCoreError as error:
            raise click.ClickException(told(error)) from error
        except Exception as error:
            if not getattr(error, "__notes__", None):
                raise
            raise click.ClickException(told(error)) from error


def told(error: Exception) -> str:
    """An error in one paragraph, with the notes on where it came from."""
    from orm_core.errors import OrmCoreError

    kind = "" if isinstance(error, OrmCoreError) else f"{type(error).__name__}: "
    return " ".join([*getattr(error, "__notes__", ()), f"{kind}{error}"])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="orm_core", prog_name="orm-core")
def main() -> None:
    """The data layer's tools: an embedded PostgreSQL, migrations, metrics, a demo, a doctor.

    Commands use DATABASE_URL, from the environment or .env in this folder; without it they start
    the embedded PostgreSQL and say so. Exit codes: 0 done, 1 a problem, 2 wrong usage.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # the service's own domains/
