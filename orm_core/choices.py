"""What settings choose among, apart from ``orm_core.settings``, which takes long to import."""

from typing import Final

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: what a database can be reached by; the first is the default
DRIVERS: Final = ("psycopg2", "psycopg3")
#: how a connection is made ready for its next user; the first is the default
RESETS: Final = ("rollback", "discard")
