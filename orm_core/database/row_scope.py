"""Which rows are meant: settings that row security policies ask for, inside a block.

::

    with row_scope(tenant=tenant_id):
        NotesService.list()     # with a policy: the rows of this tenant

They travel like who acts (``orm_core.database.acting``): as settings of the transaction, in one text
with its first statement. Nothing of them stays in a session, so none leaks through a pool.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final
from uuid import UUID

from orm_core.database import acting
from orm_core.database.plain_functions import block
from orm_core.errors import InvalidValue

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")


def is_setting(name: Any) -> bool:
    """Whether a setting may have this name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def setting(name: str) -> str:
    """SQL of a setting, as text, for a policy: NULL where it is not set.

    What is compared with NULL is not true, so that a policy which asks for it shows no row then.
    """
    if not is_setting(name):
        raise InvalidValue("A setting's name has a-z, 0-9 and _, 40 at most.")
    # In a session in which it was set once, it is an empty text afterwards, and not NULL.
    return f"nullif(current_setting('{acting.SCOPE}.{name}', true), '')"


@block
def row_scope(**settings: str | int | UUID) -> Generator[None]:
    """Set what policies ask for, inside the block, on this thread or in this task.

    Also a decorator. A block inside another keeps the settings that it does not name. Values are
    texts of 1 to 200 characters, whole numbers or UUIDs; raises ``InvalidValue`` for others.
    """
    told = {name: _text(name, value) for name, value in settings.items()}
    with acting.scoped(told):
        yield


def _text(name: str, value: Any) -> str:
    if not is_setting(name):
        raise InvalidValue("row_scope() takes names of a-z, 0-9 and _, 40 characters at most.")
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= acting.LONGEST and value.isprintable():
        return value
    raise InvalidValue(
        f"row_scope() takes for {name} a text of 1 to {acting.LONGEST} printable characters, a whole "
        "number or a UUID."
    )
