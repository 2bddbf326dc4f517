"""Whether row security hides rows from the role that is connected."""

from __future__ import annotations

from typing import Any

from orm_core.errors import InsufficientPrivilege
from orm_core.models.batches import table_of


def refuse_hidden_rows(model: Any) -> None:
    """Raise ``InsufficientPrivilege`` when row security may hide rows of a model's table."""
    table = table_of(model).replace("%%", "%")
    sql = "SELECT pg_catalog.row_security_active(%s)"
    if model._meta.database.execute_sql(sql, (table,)).fetchone()[0]:
        raise InsufficientPrivilege(
            f"Row security hides rows of {model._meta.table_name} from this role, so they would be "
            "passed over. Use the migration role, or another with BYPASSRLS.",
            table=model._meta.table_name,
        )
