"""What the audit trail costs: the update of the benchmarks, unaudited, audited and in a chain.

``python -m benchmarks.auditing`` prints the instructions of one update, client and server.
"""

from __future__ import annotations

from typing import Any

from benchmarks.counting import best_meter
from benchmarks.measure import Results, count
from benchmarks.workloads import WORKLOADS

NAMES = ("orm_core", "orm_core audited", "orm_core chained")
UPDATE = "W3"


def begin(audit: Any) -> None:
    """Audit the users of the contender's database, whose tables are there already."""
    from domains.users import User
    from orm_core import AuditEntry, Domain, Registry, db
    from orm_core.models.schema import create_all
    from orm_core.models.triggers import create_triggers

    Registry().register(Domain("benchmark", models=(User,), audit=audit))
    create_all(db, [AuditEntry])
    create_triggers(db, [User])
    db.close_all()


def main() -> None:
    """Count, and print a line for each."""
    with best_meter() as meter:
        if meter is None:
            raise SystemExit("Instructions can't be counted here: install valgrind.")
        results = Results([WORKLOADS[UPDATE]])
        count(meter, NAMES, results)
    base = results.cell(UPDATE, NAMES[0])
    for name in NAMES:
        cell = results.cell(UPDATE, name)
        client, server = cell.client or 0, cell.server or 0
        ratio = (client + server) / ((base.client or 0) + (base.server or 0))
        print(f"{name:<18} client {client:>9,.0f}  server {server:>9,.0f}  together x{ratio:.2f}")


if __name__ == "__main__":
    main()
