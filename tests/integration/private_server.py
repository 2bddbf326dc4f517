"""Servers of a test module's own, on a TCP port of the loopback, where roles need passwords.

``cluster()`` runs initdb once; ``Cluster.serve()`` starts a server on a copy of it, so that one
has few connections and another never gets ready. ``Cluster.prepare()`` answers one that the test
itself starts, stops, kills and freezes.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

import psycopg2

from orm_core.embedded import account, binaries

DEADLINE = 30.0
#: the shell ends the server when its own standard input ends: with the test process, at the latest
_LEASH = """exec 3<&0; "$@" </dev/null 3<&- & server=$!
{ read -r _ <&3; kill -INT $server; } & wait $server"""
_FAST = {"fsync": "off", "shared_buffers": "16MB"}


@dataclass(frozen=True)
class PrivateServer:
    """A running server; ``password`` is the one of ``postgres`` and of all roles made here."""

    port: int
    password: str
    host: str = "127.0.0.1"

    def url(
        self,
        database: str = "postgres",
        user: str = "postgres",
        password: str | None = None,
        host: str | None = None,
        port: int | None = None,
        **options: str,
    ) -> str:
        secret = quote(self.password if password is None else password, safe="")
        query = f"?{urlencode(options)}" if options else ""
        return f"postgresql://{user}:{secret}@{host or self.host}:{port or self.port}/{database}{query}"

    def run(self, *statements: str) -> None:
        """Run statements as superuser, in one session; ``{password}`` is the server's."""
        with closing(psycopg2.connect(self.url(), connect_timeout=10)) as connection:
            connection.autocommit = True
            for statement in statements:
                connection.cursor().execute(statement.replace("{password}", self.password))


class Cluster:
    """A fresh data directory to start servers from, in ``folder``."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.password = password
        found = binaries.find()
        self._user = account.of_server(folder / "template")
        self._programs = binaries.reachable(found, self._user)
        # Under the method md5, roles whose secret is made for SCRAM use SCRAM.
        secret = folder / "password"
        secret.write_text(password)
        self.give(secret)
        self._template = self._directory("template")
        command = [self._programs / "initdb", "-D", self._template, "-U", "postgres", "--no-sync"]
        command += ["--auth-local=reject", "--auth-host=md5", f"--pwfile={secret}"]
        # initdb would store every secret as MD5 for this method.
        command += ["--set=password_encryption=scram-sha-256"]
        command += ["--encoding=UTF8", f"--locale={binaries.locale()}", "--lc-messages=C"]
        subprocess.run(
            command,
            env=binaries.environment(),
            cwd="/",
            check=True,
            capture_output=True,
            **self._user.process_options(),
        )

    def give(self, path: Path) -> Path:
        """Let only the server's user (and root) read a file or folder."""
        path.chmod(0o700 if path.is_dir() else 0o600)
        if self._user.dropped:
            os.chown(path, self._user.uid, self._user.gid)
        return path

    def _directory(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        return self.give(path)

    def _copy(self, name: str) -> Path:
        target = self._directory(name)
        command = ["cp", "-R", f"{self._template}/.", target]
        subprocess.run(command, cwd="/", check=True, **self._user.process_options())
        return target

    def prepare(self, name: str, *, standby: bool = False, **settings: str) -> ServerProcess:
        """A server with these settings that nobody started yet.

        A ``standby`` starts for ever, as it has no primary.
        """
        data = self._copy(name)
        if standby:
            (data / "standby.signal").touch()
            settings["hot_standby"] = "off"
        server = PrivateServer(_free_port(), self.password)
        told = {"listen_addresses": server.host, "port": str(server.port)}
        told |= {"unix_socket_directories": "", **_FAST, **settings}
        options = [part for key, value in told.items() for part in ("-c", f"{key}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(data), *options]
        return ServerProcess(server, data, command, self._user.process_options())

    @contextmanager
    def serve(
        self, name: str, *, standby: bool = False, **settings: str
    ) -> Iterator[PrivateServer]:
        """A server that runs while the block does; see ``prepare``."""
        process = self.prepare(name, standby=standby, **settings)
        try:
            process.start()
            yield process.server
        finally:
            process.stop()


class ServerProcess:
    """The processes of a server, to start, end and freeze them."""

    def __init__(
        self, server: PrivateServer, data: Path, command: list[str], options: dict[str, Any]
    ) -> None:
        self.server = server
        self._data = data
        self._command = command
        self._options = options
        self._leash: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor killed by us since."""
        return self._leash is not None

    def start(self) -> None:
        """Start, and wait until it answers."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                return self._start()
            except AssertionError as error:  # the kernel is still ending one that was killed
                self._reap()
                if "shared memory block" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def _start(self) -> None:
        with tempfile.TemporaryFile() as log:
            self._leash = subprocess.Popen(
                ["/bin/sh", "-c", _LEASH, "sh", *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=binaries.environment(),
                cwd="/",
                start_new_session=True,
                **self._options,
            )
            _wait_until_it_listens(self.server, self._leash, log)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT is the fast shutdown of the manual, SIGQUIT the immediate one."""
        self.thaw()
        if self._leash is None:
            return
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self._postmaster(), how)
        self._reap()

    def kill(self) -> None:
        """End all its processes at once, with no word to anybody."""
        pids = self._frozen or self._halt()
        self._frozen = []
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reap()

    def freeze(self) -> None:
        """Let none of its processes do anything; the kernel still takes connections and bytes."""
        self._frozen = self._halt()

    def thaw(self) -> None:
        """Let them go on."""
        for pid in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def _halt(self) -> list[int]:
        """All processes, stopped; the first is the one that makes the others."""
        with closing(psycopg2.connect(self.server.url(), connect_timeout=10)) as connection:
            os.kill(self._postmaster(), signal.SIGSTOP)  # from here on there are no new ones
            cursor = connection.cursor()
            cursor.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            pids = [self._postmaster(), *(pid for (pid,) in cursor.fetchall())]
        for pid in pids[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return pids

    def _postmaster(self) -> int:
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def _reap(self) -> None:
        assert self._leash is not None
        self._leash.communicate(timeout=DEADLINE)
        self._leash = None


def _wait_until_it_listens(
    server: PrivateServer, process: subprocess.Popen[bytes], log: IO[bytes]
) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            psycopg2.connect(server.url(), connect_timeout=10).close()
        except psycopg2.OperationalError as error:
            if "Hot standby mode is disabled" in str(error):
                return
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(log.read().decode()) from None
            assert time.monotonic() < deadline, f"not ready within {DEADLINE:g} s"
            time.sleep(0.02)
        else:
            return


@contextmanager
def cluster(password: str) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="orm_core-private-"))
    folder.chmod(0o711)
    try:
        yield Cluster(folder, password)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
