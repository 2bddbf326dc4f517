"""Values that show themselves only when asked."""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import json
from typing import Any, ClassVar, NoReturn

from orm_core.errors import InvalidValue, SecretUnreadable


class Secret:
    """A text that shows itself only when asked: ``Secret("...").reveal()``.

    Its repr and str are masked; it can't be pickled, written as JSON, hashed or formatted.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError("A Secret holds a str.")
        self._text = text

    def reveal(self) -> str:
        """The text. Raises ``SecretUnreadable`` when it was stored and can't be opened."""
        return self.plain()

    def plain(self) -> str:
        """The text that is encrypted; for a ``Secret`` the one that it reveals."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('********')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        import hmac

        if not isinstance(other, Secret):
            return NotImplemented
        if isinstance(self, SecretJSON) is not isinstance(other, SecretJSON):
            return False
        one, two = (each._compared().encode("utf-8", "surrogatepass") for each in (self, other))
        return hmac.compare_digest(one, two)

    def _compared(self) -> str:
        return self.plain()

    __hash__: ClassVar[None] = None  # type: ignore[assignment] # pyright: ignore[reportIncompatibleMethodOverride]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A Secret can't be pickled or copied; store it in an encrypted column.")

    def __getstate__(self) -> NoReturn:
        # Python's own answers the text to whoever serializes without the protocol above.
        self.__reduce_ex__(2)

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce_ex__(2)


class SecretJSON(Secret):
    """A value of JSON that shows itself only when asked: ``SecretJSON({"pin": 1}).reveal()``.

    Masked like a ``Secret``. Takes dicts with str keys, lists, str, int, finite floats, bool and
    None; each ``reveal()`` answers a fresh copy. Raises ``InvalidValue`` for anything else.
    """

    __slots__ = ()

    def __init__(self, value: Any) -> None:
        text = _as_json(value)
        if text is None:
            raise InvalidValue(
                "A SecretJSON holds JSON: dicts with str keys, lists, str, numbers (no NaN), bool "
                "or None."
            )
        super().__init__(text)

    def reveal(self) -> Any:
        """The value. Raises ``SecretUnreadable`` when it was stored and can't be opened."""
        try:
            return json.loads(self.plain())
        except ValueError:
            pass  # not raised here: the error of json carries the text
        raise SecretUnreadable("The encrypted value opens, but it does not hold JSON.")

    def __repr__(self) -> str:
        return "SecretJSON('********')"

    def __str__(self) -> str:
        return repr(self)

    def _compared(self) -> str:
        return _as_json(self.reveal()) or ""


def _as_json(value: Any) -> str | None:
    """The one text of this value, or None when it would not come back the same."""
    try:
        text = json.dumps(
            value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
        )
        return text if json.loads(text) == value else None
    except (TypeError, ValueError, RecursionError):  # they carry values
        return None


def encode(text: str) -> bytes | None:
    """The text in UTF-8, or None: the codec's own error would carry the text."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None
