"""Instructions retired: by the processor's counters, else by valgrind's callgrind.

A ``Meter`` counts what one run of calls costs the client's process and the server's backend. An
empty run is taken off, so that what stays belongs to the calls.

``Counters`` reads the processor (perf_event_open(2)): user and kernel, all threads of the client.
It needs hardware that has counters (few virtual machines do) and
``/proc/sys/kernel/perf_event_paranoid`` of 2 or less; for the kernel's part 1 or less, else
``user`` is counted only; for the server's backend it has to run on this machine, as this user or
under root. ``Callgrind`` counts user instructions, exactly the same in each run; client and
server run about 50 times slower under it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.process import Process
from benchmarks.server import Server, given_or_embedded, under


@dataclass(frozen=True)
class Count:
    """Instructions; None where they can't be counted."""

    client: float
    server: float | None

    def minus(self, other: Count) -> Count:
        both = self.server is not None and other.server is not None
        server = self.server - other.server if both else None  # type: ignore[operator]
        return Count(self.client - other.client, server)


class Meter(Protocol):
    """What counts."""

    #: how, in words for the report
    how: str
    #: what contenders' processes are started under
    command: tuple[str, ...]

    def server(self) -> AbstractContextManager[Server]:
        """The server whose backends can be counted."""

    def count(self, process: Process, orders: dict[str, Any]) -> Count:
        """Have the process do it and answer what that cost."""


# -- callgrind ----------------------------------------------------------------------------------


class Callgrind:
    """Clients and, unless ``client_only``, backends under valgrind."""

    how = "callgrind, user instructions"

    def __init__(self, folder: Path, *, client_only: bool = False) -> None:
        self._folder = folder
        self._client_only = client_only
        folder.chmod(0o777)  # the server's user writes its counts here
        tool = ("valgrind", "-q", "--tool=callgrind", f"--vgdb-prefix={folder}/vgdb")
        self._files = f"--callgrind-out-file={folder}/out.%p"
        self.command = (*tool, self._files, "--instr-atstart=no", "--smc-check=all-non-file")
        # A backend counts from the start and writes down its count when it is asked for its pid.
        self._server = (*tool, self._files, "--dump-before=pg_backend_pid")

    @staticmethod
    def there() -> bool:
        """Whether valgrind is installed."""
        return bool(shutil.which("valgrind") and shutil.which("vgdb"))

    def server(self) -> AbstractContextManager[Server]:
        return under(() if self._client_only else self._server)

    def count(self, process: Process, orders: dict[str, Any]) -> Count:
        with_server = orders["threads"] == 1 and not self._client_only
        if with_server:
            backend = process.ask(**MARK)["result"]
        self._tell(process, "instrumentation", "on")
        process.ask(**orders)
        self._tell(process, "instrumentation", "off")
        self._tell(process, "dump")
        client = self._newest(process.pid)
        if not with_server:
            return Count(client, None)
        process.ask(**MARK)
        return Count(client, self._newest(backend))

    def _tell(self, process: Process, *words: str) -> None:
        command = ["vgdb", f"--vgdb-prefix={self._folder}/vgdb", f"--pid={process.pid}", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def _newest(self, pid: int) -> int:
        """The total of the last count that the process wrote; earlier ones are done with."""
        files = self._folder.glob(f"out.{pid}.*")
        *old, last = sorted(files, key=lambda path: int(path.suffix[1:]))
        for path in old:
            path.unlink()
        found = re.search(r"^totals: (\d+)", last.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


#: orders that make a backend known
MARK: dict[str, Any] = {"call": "mark", "start": 0, "times": 1, "show": True}


# -- hardware counters --------------------------------------------------------------------------


class _Attributes(ctypes.Structure):
    """``struct perf_event_attr``, its first version."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("bp_addr", ctypes.c_uint64),
    )


_SYSCALL = {"x86_64": 298, "aarch64": 241}
_HARDWARE, _INSTRUCTIONS = 0, 1
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6


def open_counter(
    pid: int, *, kernel: bool, kind: int = _HARDWARE, config: int = _INSTRUCTIONS
) -> int:
    """A descriptor that counts for a process, and for the threads it starts from now on.

    Raises ``OSError``.
    """
    flags = _INHERIT | _EXCLUDE_HYPERVISOR | (0 if kernel else _EXCLUDE_KERNEL)
    attributes = _Attributes(type=kind, size=ctypes.sizeof(_Attributes), config=config, flags=flags)
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(f"perf_event_open is not known for {platform.machine()}")
    descriptor: int = libc.syscall(number, ctypes.byref(attributes), pid, -1, -1, 0)
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return descriptor


def read_counter(descriptor: int) -> int:
    """What was counted so far."""
    return int.from_bytes(os.read(descriptor, 8), "little")


class Counters:
    """The processor's own counters."""

    command: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._kernel = True
        try:
            os.close(open_counter(0, kernel=True))
        except OSError:
            os.close(open_counter(0, kernel=False))
            self._kernel = False
        mode = "user and kernel" if self._kernel else "user"
        self.how = f"hardware counters, {mode} instructions"
        self._open: dict[int, list[int]] = {}

    def server(self) -> AbstractContextManager[Server]:
        return given_or_embedded()

    def count(self, process: Process, orders: dict[str, Any]) -> Count:
        backend = process.ask(**MARK)["result"] if orders["threads"] == 1 else None
        clients = self._counters(process.pid)
        servers = self._counters(backend) if backend else []
        before = sum(map(read_counter, clients)), sum(map(read_counter, servers))
        process.ask(**orders)
        after = sum(map(read_counter, clients)), sum(map(read_counter, servers))
        return Count(after[0] - before[0], after[1] - before[1] if servers else None)

    def _counters(self, pid: int) -> list[int]:
        """A counter for each thread that is there; they count the threads to come."""
        if pid not in self._open:
            try:
                tasks = os.listdir(f"/proc/{pid}/task")
                self._open[pid] = [open_counter(int(one), kernel=self._kernel) for one in tasks]
            except OSError:  # on another machine, or another user's
                self._open[pid] = []
        return self._open[pid]


@contextmanager
def best_meter(wanted: str = "auto") -> Iterator[Meter | None]:
    """The meter of this name (``hardware``, ``callgrind``, ``none``), or the best there is."""
    if wanted in ("auto", "hardware"):
        try:
            yield Counters()
            return
        except OSError:
            if wanted == "hardware":
                raise SystemExit("This machine gives no access to hardware counters.") from None
    if wanted == "none" or (wanted == "auto" and not Callgrind.there()):
        yield None
        return
    if not Callgrind.there():
        raise SystemExit("callgrind needs valgrind.")
    with callgrind() as meter:
        yield meter


@contextmanager
def callgrind(*, client_only: bool = False) -> Iterator[Callgrind]:
    """Callgrind, with a folder for its files."""
    with tempfile.TemporaryDirectory(prefix="orm_core-callgrind-") as folder:
        yield Callgrind(Path(folder), client_only=client_only)
