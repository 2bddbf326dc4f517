"""The command line: ``orm-core``. One module a group of commands."""

from orm_core.cli.main import main

__all__ = ["main"]
