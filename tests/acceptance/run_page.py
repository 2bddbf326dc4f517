"""Run the snippets of one Markdown page, top to bottom, in one namespace: run_page.py PAGE.

A fence says what becomes of it:

    ```python             run; a failure names the page and the line
    ```python no-run: why shown only
    ```console            lines after "$ " are run by a shell; what follows is their output
    ```text               after <!-- output -->: what the Python block before it printed

and ``<!-- setup ... -->`` is Python that is run and not shown. Output is compared as doctest
does, so ``...`` stands for anything. The database is that of DATABASE_URL.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import linecache
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|^(?P<output><!-- output -->\n)?```(?P<fence>[^\n]*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
_FLAGS = doctest.ELLIPSIS | doctest.REPORT_NDIFF


class Block(NamedTuple):
    """A part of a page that is run: its kind, its first line and its text."""

    kind: str
    line: int
    text: str


def blocks(text: str) -> Iterator[Block]:
    """The parts of a page that are run, in order."""
    for match in _BLOCK.finditer(text):
        name = "setup" if match["setup"] is not None else "body"
        line = text.count("\n", 0, match.start(name)) + 1
        fence = match["fence"] or ""
        if name == "setup" or fence == "python":
            yield Block("python", line, match[name])
        elif fence == "console" or match["output"]:
            yield Block("console" if fence == "console" else "output", line, match[name])


def run(page: Path) -> None:
    """Run a page's blocks; raises what a block raises."""
    text = page.read_text()
    linecache.cache[str(page)] = (len(text), None, text.splitlines(keepends=True), str(page))
    namespace: dict[str, object] = {"__name__": "snippet"}
    printed = ""
    for block in blocks(text):
        if block.kind == "python":
            # Blank lines first, so that tracebacks carry the page's own line numbers.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                exec(code, namespace)
            printed = stream.getvalue()
        elif block.kind == "output":
            _compare(block.text, printed, f"{page}:{block.line}")
        else:
            for match in _COMMAND.finditer(block.text):
                line = block.line + block.text.count("\n", 0, match.start())
                _compare(match["output"], _shell(match["command"]), f"{page}:{line}")


def _shell(command: str) -> str:
    done = subprocess.run(
        command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    return done.stdout.decode()


def _compare(want: str, got: str, where: str) -> None:
    checker = doctest.OutputChecker()
    if not checker.check_output(want, got, _FLAGS):
        example = doctest.Example("", want)
        sys.exit(f"{where}\n{checker.output_difference(example, got, _FLAGS)}")


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    run(Path(sys.argv[1]))
