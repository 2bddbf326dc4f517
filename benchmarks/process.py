"""A contender's process, as the run sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.contenders import drizzle


class Broken(Exception):
    """A contender's process failed; the text is its own."""


class Process:
    """Started under ``command``; asks and answers are a line each."""

    def __init__(
        self, name: str, url: str, command: tuple[str, ...] = (), pool_size: int = 10
    ) -> None:
        self.name = name
        program = [sys.executable, "-m", "benchmarks.worker", name, url, str(pool_size)]
        if name == "drizzle":
            program = drizzle.command(url, pool_size)
        self._process = subprocess.Popen(
            [*command, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        hello = self._read()
        self.unable: str | None = hello.get("unable")
        self.unable_to: dict[str, str] = hello.get("unable_to", {})
        self.returns: str = hello.get("returns", "")
        self.versions: dict[str, str] = hello.get("versions", {})
        if self.unable:
            self.close()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def ask(
        self,
        *,
        call: str,
        start: int,
        times: int,
        threads: int = 1,
        checkout: bool = False,
        show: bool = False,
    ) -> dict[str, Any]:
        """Have it make the calls. Raises ``Broken``."""
        assert self._process.stdin is not None
        orders = {
            "call": call,
            "start": start,
            "times": times,
            "threads": threads,
            "checkout": checkout,
            "show": show,
        }
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise Broken(f"{self.name}, {call}: {answer['error']}")
        return answer

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Broken(f"{self.name} ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
