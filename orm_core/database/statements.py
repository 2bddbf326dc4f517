"""What a statement does and to which table, read from its text.

``describe('SELECT ... FROM "users" AS "t1"')`` answers ``Statement("select", ("users",))``.
It reads words and quoted names only, at their depth of parentheses; literals, comments and
dollar-quoted bodies are passed over (PostgreSQL manual, "Lexical Structure").
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: the only operations there are: a label never comes from a statement's text
OPERATIONS = frozenset(
    {"select", "insert", "update", "delete", "merge", "truncate", "copy"}
    | {"begin", "commit", "rollback", "savepoint", "release"}
    | {"create", "alter", "drop", "set", "other"}
)
_SYNONYMS = {
    "start": "begin",
    "end": "commit",
    "abort": "rollback",
    "values": "select",
    "table": "select",
    "show": "set",
    "reset": "set",
    "discard": "set",
}
TRANSACTION_OPERATIONS = frozenset({"begin", "commit", "rollback", "savepoint", "release"})

_TOKEN = re.compile(
    r"""
      (?P<skip> --[^\n]* | E'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*'
              | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<comment> /\* )
    | (?P<open> \( ) | (?P<close> \) ) | (?P<comma> , )
    | (?P<name> (?:"(?:[^"]|"")+"|[^\W\d][\w$]*) (?:\s*\.\s*(?:"(?:[^"]|"")+"|[^\W\d][\w$]*))* )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_VERBS = {"select", "insert", "update", "delete", "merge", "values", "table"}
_BEFORE_TABLE = {"from", "join", "into", "update", "table", "truncate", "copy", "using", "only"}
_NOT_A_TABLE = {"select", "only", "lateral", "set", "if", "not", "exists", "values", "on", "where"}


#: characters of a statement that are read
_LONG = 20_000


#: what may carry a value: literals (an open one runs to the end), numbers, comments; names do not
_VALUE = r"""(?xsi)
      (?P<name> "(?:[^"]|"")*" | [^\W\d][\w$]*(?!')\b | \$\d+ )
    | (?: \bE'(?:[^'\\]|\\.|'')* | (?:\b[BXN]|\bU&)?'(?:[^']|'')* ) (?:'|$)
    | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|$)
    | --[^\n]* | /\*(?:.*\*/|.*)  # comments nest
    | \d[\w.]* | \.\d[\w.]*
    """


def masked(sql: str) -> str:
    """The statement with ``?`` in the place of each value that is written into it."""
    return re.sub(_VALUE, lambda found: found["name"] or "?", sql)


class Statement(NamedTuple):
    """``operation`` is one of ``OPERATIONS``; ``tables`` are candidates, the likeliest first."""

    operation: str
    tables: tuple[str, ...]


def describe(sql: str) -> Statement:
    """The operation and the tables of one statement; reads its first 20,000 characters."""
    sql = sql[:_LONG]
    depth, operation = 0, ""
    previous: str = ""
    found: list[tuple[int, int, str]] = []
    place = 0
    while match := _TOKEN.search(sql, place):
        kind, place = match.lastgroup, match.end()
        if kind == "comment":
            place = _end_of_comment(sql, place)
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "comma" and previous == "from-list":
            previous = "from"
        elif kind == "name":
            text = match["name"]
            word = text.lower()
            if not operation or (operation == "with" and depth == 0):
                operation = _operation(operation, word)
            if previous in _BEFORE_TABLE and word not in _NOT_A_TABLE:
                found.append((depth, len(found), _unquote(text)))
                previous = "from-list" if previous == "from" else ""
            elif word in _BEFORE_TABLE or word == "only":
                previous = word
            elif word not in {"if", "not", "exists", "lateral"} and previous != "from-list":
                previous = ""
    names = tuple(dict.fromkeys(name for _, _, name in sorted(found)))
    return Statement(operation if operation in OPERATIONS else "other", names)


def _end_of_comment(sql: str, place: int) -> int:
    """Comments nest: ``/* a /* b */ c */`` is one."""
    depth = 1
    for mark in _COMMENT_MARK.finditer(sql, place):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)


def _operation(current: str, word: str) -> str:
    if current == "with":  # the main verb follows the parentheses of the last CTE
        return _SYNONYMS.get(word, word) if word in _VERBS else current
    return _SYNONYMS.get(word, word)


def _unquote(name: str) -> str:
    parts = re.findall(r'"((?:[^"]|"")+)"|([^\W\d][\w$]*)', name)
    return ".".join(
        # A dot inside quotes parts nothing: "a.b" is one name, and keeps its quotes.
        (f'"{quoted}"' if "." in quoted else quoted.replace('""', '"')) if quoted else bare.lower()
        for quoted, bare in parts
    )
