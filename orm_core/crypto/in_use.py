"""The keys in use: those given in code, else of a file, else of the environment; read once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from orm_core.crypto.index import IndexKeys
from orm_core.crypto.keys import Keys
from orm_core.crypto.ring import KeyRing
from orm_core.errors import KeyRingError

if TYPE_CHECKING:
    from pathlib import Path

    from orm_core.settings import Settings

K = TypeVar("K", bound=Keys)

Source: TypeAlias = K | Callable[[], K | str] | None


class _InUse(Generic[K]):
    """Keys of one kind; ``setting`` is the one that holds them, ``<setting>_file`` names a file."""

    def __init__(self, kind: type[K], setting: str, parse: Callable[[str, Settings], K]) -> None:
        self._kind = kind
        self._setting = setting
        self._variable = f"ORM_CORE_{setting.upper()}"
        self._parse = parse
        self._keys: K | None = None

    def get(self) -> K:
        if self._keys is None:
            config = _settings()
            self._keys = self._parse(self._text(config), config)
        return self._keys

    def use(self, source: Source[K]) -> None:
        given = source() if callable(source) else source
        if isinstance(given, str):
            given = self._parse(given, _settings())
        if given is not None and not isinstance(given, self._kind):
            name = self._kind.__name__
            raise KeyRingError(f"Give a {name}, or a function that answers one or its text.")
        if given is None and source is not None:
            raise KeyRingError("The function that should answer the keys answered None.")
        self._keys = given

    def _text(self, config: Settings) -> str:
        text: str | None = getattr(config, self._setting)
        file: Path | None = getattr(config, f"{self._setting}_file")
        if text and file:
            raise KeyRingError(f"Set {self._variable} or {self._variable}_FILE, not both.")
        if file:
            return _private_text(file, f"{self._variable}_FILE")
        if text:
            return text
        option = " --index" if self._kind is IndexKeys else ""
        raise KeyRingError(
            f"No {'index keys' if option else 'keys for encrypted columns'}: set {self._variable} "
            f"to id:key, the key as 64 hex digits, or {self._variable}_FILE to a file of such "
            f"lines. Make one: orm-core keys generate{option}."
        )


def _settings() -> Settings:
    from orm_core import settings  # slow to import, and seldom needed before there is a database

    return settings.load()


def _private_text(path: Path, variable: str) -> str:
    """The text of a file that only we can read. Raises ``KeyRingError`` for any other."""
    problem = None
    try:
        # One descriptor for the check and for reading: the path may lead elsewhere by then.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would keep us waiting
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                problem = "is no regular file"
            elif found.st_uid != os.geteuid():
                problem = "belongs to another user: chown it"
            elif stat.S_IMODE(found.st_mode) & ~(stat.S_IRUSR | stat.S_IWUSR):
                problem = "can be used by others than its owner: chmod 600"
            else:
                return file.read().decode("ascii")
    except OSError as error:
        problem = f"can't be read ({error.strerror})"
    except UnicodeError:
        problem = "is not a text of key entries"
    raise KeyRingError(f"The file of {variable} {problem}.")


_ring = _InUse(
    KeyRing,
    "token_keys",
    lambda text, config: KeyRing.parse(text, allow_legacy=config.allow_legacy),
)
_index_keys = _InUse(IndexKeys, "index_keys", lambda text, _: IndexKeys.parse(text))


def key_ring() -> KeyRing:
    """The key ring in use: what ``use_key_ring`` set, else that of the settings, read once.

    Raises ``KeyRingError`` when there is none.
    """
    return _ring.get()


def use_key_ring(source: Source[KeyRing]) -> None:
    """Use this key ring from now on; None reads the settings anew.

    ``source`` may be a function, which is called once, here: it answers a ``KeyRing`` or the text
    of one, as when a KMS unwraps it at start. Raises ``KeyRingError`` for anything else.
    """
    _ring.use(source)


def index_keys() -> IndexKeys:
    """The keys of blind indexes in use: what ``use_index_keys`` set, else those of the settings.

    Raises ``KeyRingError`` when there are none, or one of them is in the key ring too.
    """
    keys = _index_keys.get()
    keys.refuse_keys_of(key_ring())
    return keys


def use_index_keys(source: Source[IndexKeys]) -> None:
    """Use these keys of blind indexes from now on; as ``use_key_ring``."""
    _index_keys.use(source)
