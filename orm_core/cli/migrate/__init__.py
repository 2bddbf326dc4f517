"""``orm-core migrate``: write, apply, check and undo migrations."""

from __future__ import annotations

import click

from orm_core.cli.migrate import applying, checking, writing


@click.group(short_help="Write, apply and check migrations.")
def migrate() -> None:
    """Write migrations from the models, and bring a database to their schema, or back.

    Files are plain peewee-migrate: a deploy script may apply them with registry.router(db).run().
    """


for _command in (
    writing.generate,
    writing.new,
    writing.backfill,
    writing.pull,
    writing.squash,
    writing.sum_,
    applying.apply,
    applying.status,
    applying.rollback,
    applying.fake,
    checking.check,
    checking.drift,
    checking.sql,
):
    migrate.add_command(_command)
