"""Values between text and Python: what a person types, and what a cell shows.

``parse(column, text)`` reads a typed text as a value of the column; ``plain(value)`` writes one
so that ``parse`` reads the same again. Times are written in ISO 8601; one without an offset is
taken for UTC.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, cast

from orm_core.errors import InvalidValue
from orm_core.studio.tables import Column, kind_of

#: words that people type for a boolean
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "1"), True),
    **dict.fromkeys(("false", "f", "no", "0"), False),
}


def parse(column: Column, text: str) -> Any:
    """The value that a text stands for. Raises ``InvalidValue``, without the text."""
    field = column.field
    value = _read(column.kind, field, text)
    field.db_value(value)
    return value


def _read(kind: str, field: Any, text: str) -> Any:
    try:
        match kind:
            case "integer":
                return int(text.strip())
            case "float":
                return _finite(float(text.strip()))
            case "decimal":
                return Decimal(text.strip())
            case "boolean":
                return _BOOLEANS[text.strip().lower()]
            case "time":
                moment = datetime.fromisoformat(text.strip())
                return moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)
            case "date":
                return date.fromisoformat(text.strip())
            case "uuid":
                return text.strip()
            case "json":
                return json.loads(text)
            case "array":
                return _array(field, text)
            case _:
                return text
    except (ValueError, KeyError, InvalidOperation, RecursionError):
        pass
    raise InvalidValue(f"{field.label} must be {_SHAPES[kind]}.")


_SHAPES = {
    "integer": "a whole number",
    "float": "a number",
    "decimal": "a number such as 12.50",
    "boolean": "true or false",
    "time": "a time such as 2026-01-31 14:05 (UTC) or 2026-01-31T14:05:00+01:00",
    "date": "a date such as 2026-01-31",
    "json": "JSON",
    "array": 'a list in JSON, such as ["a", "b"]',
}


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError
    return number


def _array(field: Any, text: str) -> list[Any]:
    items = json.loads(text)
    if not isinstance(items, list):
        raise ValueError
    kind = kind_of(field.inner)
    return [
        _read(kind, field.inner, one) if isinstance(one, str) and kind != "json" else one
        for one in cast("list[Any]", items)
    ]


def parse_item(column: Column, text: str) -> Any:
    """An item of an array column from a text. Raises ``InvalidValue``."""
    inner = column.field.inner
    return _read(kind_of(inner), inner, text)


def plain(value: Any) -> str:
    """A value, other than None, as the text that ``parse`` reads."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date):
        return value.isoformat(*(" ",) if isinstance(value, datetime) else ())
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=_item)
    return str(value)


def _item(value: Any) -> str:
    return plain(value)


def local(moment: datetime) -> str:
    """A moment in this machine's time zone, to the second, with the offset."""
    here = moment.astimezone()
    return here.strftime("%Y-%m-%d %H:%M:%S ") + _offset(here)


def _offset(moment: datetime) -> str:
    text = moment.strftime("%z")
    return "UTC" if text == "+0000" else f"{text[:3]}:{text[3:5]}"
