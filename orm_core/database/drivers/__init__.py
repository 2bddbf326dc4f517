"""The drivers that a database can be reached by, one module each; ``protocol`` is what they share.

psycopg 2 is always there. psycopg 3 comes with the extra ``orm_core[psycopg3]`` and is imported
when a database asks for it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import cast

from orm_core.choices import DRIVERS
from orm_core.database.drivers.protocol import Driver
from orm_core.errors import ConfigurationError


def load(name: str) -> Driver:
    """The driver of this name. Raises ``ConfigurationError`` for one unknown or not installed."""
    if name not in DRIVERS:
        raise ConfigurationError(f"There is no such driver: use one of {', '.join(DRIVERS)}.")
    try:
        return cast(Driver, import_module(f"orm_core.database.drivers.{name}"))
    except ImportError as error:
        raise ConfigurationError(
            f"The driver {name} can't be imported ({error}). Install it: "
            f"pip install 'orm_core[{name}]'."
        ) from error


def check_waits(name: str) -> None:
    """Raise ``ConfigurationError`` for a driver that stops all greenlets while it waits."""
    gevent = sys.modules.get("gevent.monkey")
    if name == "psycopg2" and gevent is not None and gevent.is_module_patched("socket"):
        raise ConfigurationError(
            "psycopg2 blocks all greenlets of gevent while it waits for the server. Use psycopg 3: "
            "pip install 'orm_core[psycopg3]', and driver=\"psycopg3\" or ORM_CORE_DRIVER=psycopg3."
        )
