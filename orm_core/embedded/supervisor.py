"""Runs the server of one folder, and stops it when nobody uses it any more.

A program of its own with nothing but the standard library, so that it starts quickly:
``python -I -S supervisor.py FOLDER`` with its orders (see `Orders`) as JSON on the standard
input. It holds the folder's supervisor lock for as long as it lives. The server goes

- when no process has held the clients lock for a second and there is no file `keep`,
- when a file `stop` appears, when the folder is gone, or on SIGTERM or SIGINT,
- with the supervisor, by the kernel's hand, when that is killed (Linux).
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

POLL_SECONDS = 0.2
GRACE_SECONDS = 1.0
# Fast shutdown, then immediate shutdown, then the end; each with its patience in seconds.
SHUTDOWN = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
PR_SET_PDEATHSIG = 1


class Orders(TypedDict):
    """What to run: the command, its environment, who it runs as, and the locks to hold."""

    command: list[str]
    environment: dict[str, str]
    account: dict[str, Any]
    sockets: str
    supervisor_lock: int
    server_lock: int


class Supervisor:
    """One server and the folder that says how long it is wanted."""

    def __init__(self, folder: Path, orders: Orders) -> None:
        self.folder = folder
        self.orders = orders
        self.signalled: bool = False
        self.clients: int = os.open(folder / "clients.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def run(self) -> None:
        """Serve until the server is not wanted any more, then stop it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        server = subprocess.Popen(  # noqa: S603 (the caller's command, no shell)
            self.orders["command"],
            env=self.orders["environment"],
            cwd="/",
            pass_fds=(self.orders["server_lock"],),
            preexec_fn=DieWithParent(os.getpid()),  # there are no threads
            start_new_session=True,
            **self.orders["account"],
        )
        try:
            self._watch(server)
        finally:
            _shut_down(server)
            self._remove_sockets()

    def _watch(self, server: "subprocess.Popen[Any]") -> None:
        idle_since: float | None = None
        while server.poll() is None and not self._told_to_stop():
            if not self._claim():
                idle_since = None
            else:
                now = time.monotonic()
                idle_since = now if idle_since is None else idle_since
                if now - idle_since >= GRACE_SECONDS:
                    return  # the lock stays with us: who comes now waits, and starts anew
                fcntl.flock(self.clients, fcntl.LOCK_UN)
            time.sleep(POLL_SECONDS)

    def _claim(self) -> bool:
        try:
            fcntl.flock(self.clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Looked at under the lock: who wrote the file held the lock as a client.
        if (self.folder / "keep").exists():
            fcntl.flock(self.clients, fcntl.LOCK_UN)
            return False
        return True

    def _told_to_stop(self) -> bool:
        return self.signalled or (self.folder / "stop").exists() or not self._is_in_place()

    def _is_in_place(self) -> bool:
        try:
            ours = os.fstat(self.orders["supervisor_lock"])
            return os.path.samestat(ours, os.stat(self.folder / "supervisor.lock"))
        except FileNotFoundError:
            return False

    def _on_signal(self, *_: object) -> None:
        self.signalled = True

    def _remove_sockets(self) -> None:
        with contextlib.suppress(OSError):  # a killed server leaves its socket in it
            os.rmdir(self.orders["sockets"])


class DieWithParent:
    """A preexec_fn: the kernel sends SIGINT, a fast shutdown, when the parent dies. Linux only."""

    def __init__(self, parent: int) -> None:
        self.parent = parent
        # Loaded before the fork, so that the child only calls it.
        self.prctl: Any = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def __call__(self) -> None:
        """Run in the child, before the program and after the change of its user."""
        if self.prctl is None:
            return
        self.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != self.parent:
            os._exit(1)  # it died before we asked


def _shut_down(server: "subprocess.Popen[Any]") -> None:
    for number, patience in SHUTDOWN:
        server.send_signal(number)
        try:
            server.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def main() -> None:
    """Read the orders, leave the caller (who waits for this process), and supervise."""
    folder = Path(sys.argv[1])
    orders: Orders = json.load(sys.stdin)
    if os.fork():
        os._exit(0)  # the caller has no child to reap, and we have no terminal to get back
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    Supervisor(folder, orders).run()


if __name__ == "__main__":
    main()
