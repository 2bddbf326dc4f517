"""``python serve.py URL FOLDER``: seeds an empty database and serves a studio on it that may write.

A program of its own, as the studio of a service is; prints its address.
"""

import sys
from pathlib import Path

from billing import COUNTS, registry

from orm_core import KeyRing, initialize_db, use_key_ring
from orm_core.migrations import runner
from orm_core.models.schema import create_all
from orm_core.studio.seed import plant
from orm_core.studio.server import Options, open_studio


def main(url: str, folder: Path) -> None:
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    database = initialize_db(url)
    runner.apply(database, folder)
    present = set(database.get_tables())
    create_all(database, [one for one in registry.models if one._meta.table_name not in present])
    plant(registry, COUNTS)
    database.execute_sql("ANALYZE")
    with open_studio(registry, database, folder, Options(write=True, sql=True, url=url)) as opened:
        server, link = opened
        sys.stdout.write(f"{link}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
