"""How values and figures read on a page: the filters of the templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from orm_core.studio import values


def thousands(number: float) -> str:
    """12345 -> ``12,345``"""
    return f"{number:,.0f}"


def compact(number: float) -> str:
    """12345 -> ``12.3k``"""
    for limit, sign in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        # 999,950 would be rounded to 1000.0k
        if number >= limit * 0.99995 and number >= 1_000:
            return f"{number / limit:.1f}".removesuffix(".0") + sign
    return f"{number:,.0f}"


def bytes_(number: float) -> str:
    """12345678 -> ``12.3 MB``"""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def short(key: Any) -> str:
    """The end of a long key: ids of one time begin alike."""
    text = values.plain(key)
    return text if len(text) <= 14 else f"…{text[-8:]}"


def excerpt(text: str, length: int) -> str:
    """The beginning of a text, with a sign that there is more."""
    return text if len(text) <= length else f"{text[:length]}…"


def local_short(moment: datetime) -> str:
    """A moment in this machine's time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def is_utc_here(moment: datetime) -> bool:
    """Whether this machine's time zone is UTC at that moment."""
    return not moment.astimezone().utcoffset()


def pretty_json(text: str) -> str:
    """JSON from the server in lines; as it is when it was cut."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text


def index_words(definition: str) -> str:
    """An index without what its row says already: ``UNIQUE btree (email)``."""
    found = re.fullmatch(r"CREATE (UNIQUE )?INDEX .+? USING (.+)", definition, re.DOTALL)
    return f"{found[1] or ''}{found[2]}" if found else definition


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "thousands": thousands,
    "compact": compact,
    "bytes": bytes_,
    "short": short,
    "excerpt": excerpt,
    "plain": values.plain,
    "local": values.local,
    "local_short": local_short,
    "is_utc_here": is_utc_here,
    "pretty_json": pretty_json,
    "index_words": index_words,
}
