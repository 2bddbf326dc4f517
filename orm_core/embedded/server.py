"""The server of one folder, as its clients see it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from orm_core.embedded import account, binaries, lock, socket_folder
from orm_core.embedded.cluster import Cluster
from orm_core.errors import EmbeddedError

START_SECONDS = 60.0
STOP_SECONDS = 30.0
WAIT_SECONDS = START_SECONDS + STOP_SECONDS
PORT = 5432
LOG_LINES = 12
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "log_destination": "stderr",
    "logging_collector": "off",
}
DURABLE = {"max_connections": "100"}
FLEETING = {
    "max_connections": "200",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


@dataclass(frozen=True)
class Status:
    """What there is to know about a folder's server, for people.

    `pid` is the server's, None when it does not run; `kept` says that it outlives its clients;
    `data` and `version` (the major one) are None before the first start.
    """

    running: bool
    pid: int | None
    kept: bool
    url: str
    folder: Path
    data: Path | None
    version: str | None
    log: Path


class EmbeddedPostgres:
    """A PostgreSQL server of this machine's own, with its data in `folder`.

        with EmbeddedPostgres(".orm_core") as postgres:
            connect(postgres.url)

    All processes that start the same folder share one server. It goes about a second after the
    last of them closed or died, unless one started it with keep=True. It listens on a Unix
    socket that only this user (and root) can reach, and asks for no password.

    `durable=False` trades safety in a power cut for speed, for tests; `durable` counts for the
    process that starts the server, not for those that join it. `database` is created when
    absent. An object is not for two threads at once; two objects are. Constructing does
    nothing yet; raises EmbeddedError on Windows.
    """

    def __init__(
        self,
        folder: Path | str = ".orm_core",
        *,
        durable: bool = True,
        database: str = "orm_core",
    ) -> None:
        if os.name != "posix":
            raise EmbeddedError(
                "The embedded PostgreSQL runs on Linux and macOS only. Set DATABASE_URL to a "
                "server that runs elsewhere, or work in WSL."
            )
        self.folder: Path = Path(folder).expanduser().resolve()
        self.durable = durable
        self.database = database
        self._cluster = Cluster(self.folder)
        self._sockets = socket_folder.path_for(self.folder)
        # A bare descriptor: an object that is forgotten must not let go of the server.
        self._client: int | None = None

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.folder)!r})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The libpq URL of the database; it works once the server is started."""
        return self.url_for(self.database)

    def url_for(self, database: str) -> str:
        """Return the libpq URL of another database of the server (it is not created)."""
        host = quote(str(self._sockets))
        # The port is named, or a PGPORT in the environment would count.
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={PORT}"

    @property
    def bin_dir(self) -> Path:
        """The folder of psql, pg_dump and the others. Raises EmbeddedError when there is none."""
        return binaries.find().folder

    @property
    def running(self) -> bool:
        """True when the server takes connections."""
        return self._is_ready()

    @property
    def pid(self) -> int | None:
        """The server's process id, for people: by the time it is used it may be a stranger's."""
        found = self._cluster.postmaster()
        return found[0] if found and self._is_supervised() else None

    def status(self) -> Status:
        """Return what there is to know about the server, for people. Starts nothing."""
        data = self._cluster.path
        return Status(
            running=self.running,
            pid=self.pid,
            kept=self._is_supervised() and (self.folder / "keep").exists(),
            url=self.url,
            folder=self.folder,
            data=data.resolve() if data.exists() else None,
            version=self._cluster.version,
            log=self.folder / "server.log",
        )

    def start(self, *, keep: bool = False) -> Self:
        """Start the server, or join the one that runs; a second call does no harm.

        With keep=True it runs on without clients until `stop`. A first start takes about a
        second. Raises EmbeddedError when there are no binaries, when the folder or the data in
        it can't be used, and when the server is not ready in a minute.
        """
        try:
            self._prepare_folder()
            with self._exclusively():
                self._join()
                self._bring_up()
                if keep:
                    (self.folder / "keep").touch()
                self._create_database()
        except OSError as error:
            self.close()
            raise EmbeddedError(
                f"The embedded PostgreSQL in {self.folder} could not be started: {error}. Make "
                "sure that the folder can be written, or set DATABASE_URL."
            ) from error
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Let go of the server; it goes too when nobody else uses it. Never raises."""
        if self._client is not None:
            # Closed, not unlocked: a forked process may still use the server.
            os.close(self._client)
            self._client = None

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """Stop the server for everybody; True when one was running.

        Raises EmbeddedError when it is still there after `timeout` seconds.
        """
        self.close()
        if not (self.folder / "start.lock").exists():
            return False
        with self._exclusively():
            if not self._is_supervised():
                return False
            (self.folder / "stop").touch()
            deadline = time.monotonic() + timeout
            while self._is_supervised():
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"The server in {self.folder} was told to stop, but still runs after "
                        f"{timeout:g} seconds.{self._log_tail(0)}"
                    )
                time.sleep(lock.POLL_SECONDS)
        return True

    def remove(self) -> None:
        """Stop the server and delete its data and all else that it put into the folder.

        There is no way back. The folder goes too when nothing else is in it. Raises
        EmbeddedError when the server does not stop.
        """
        self.stop()
        if not (self.folder / "start.lock").exists():
            return
        with self._exclusively():
            self._cluster.delete()
            for name in ("keep", "stop", "server.log", ".gitignore"):
                (self.folder / name).unlink(missing_ok=True)
            for path in self.folder.glob("*.lock"):
                path.unlink()
        with contextlib.suppress(OSError):  # not empty, or another process starts anew in it
            self.folder.rmdir()

    def hold_across_exec(self) -> None:
        """Let a program that takes this process's place (os.exec...) go on as a client."""
        if self._client is not None:
            os.set_inheritable(self._client, True)

    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True)
            if os.geteuid() == 0:
                self.folder.chmod(0o711)  # the server's user has to get through to the data
        except FileExistsError:
            pass
        owner = self.folder.stat().st_uid
        if owner != os.geteuid():
            raise EmbeddedError(
                f"The folder {self.folder} belongs to user id {owner}, and this process runs as "
                f"{os.geteuid()}. Run it as that user, or use a folder of your own."
            )
        mark = self.folder / "start.lock"
        if not mark.exists() and any(self.folder.iterdir()) and not mark.exists():
            raise EmbeddedError(
                f"The folder {self.folder} holds other files. Give the embedded PostgreSQL a "
                "folder of its own: a new or an empty one."
            )
        mark.touch(mode=0o600)
        ignore = self.folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    def _join(self) -> None:
        path = self.folder / "clients.lock"
        if self._client is not None and lock.is_on(path, self._client):
            return
        self.close()
        # It is not free while a supervisor that found nobody shuts its server down.
        self._client = lock.take(path, shared=True, timeout=STOP_SECONDS)
        if self._client is None:
            raise EmbeddedError(
                f"The server in {self.folder} has been shutting down for {STOP_SECONDS:g} "
                f"seconds.{self._log_tail(0)}"
            )

    def _exclusively(self) -> contextlib.AbstractContextManager[int]:
        return lock.held(
            self.folder / "start.lock",
            timeout=WAIT_SECONDS,
            refusal=f"Another process has been starting or stopping the server in {self.folder} "
            f"for {WAIT_SECONDS:g} seconds. Find out what keeps it, or end it, and try again.",
        )

    def _is_supervised(self) -> bool:
        return not lock.is_free(self.folder / "supervisor.lock")

    def _is_ready(self) -> bool:
        # The lock first: the pid file may be a dead server's.
        if not self._is_supervised() or (self.folder / "stop").exists():
            return False
        found = self._cluster.postmaster()
        return found is not None and found[1] == "ready"

    def _bring_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        log_size: int | None = None
        while not self._is_ready():
            if not self._is_supervised():
                if log_size is not None:
                    raise EmbeddedError(
                        f"The server in {self.folder} ended while it was starting."
                        + self._log_tail(log_size)
                    )
                log_size = self._launch()
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"The server in {self.folder} was not ready after {START_SECONDS:g} seconds."
                    + self._log_tail(log_size or 0)
                )
            time.sleep(lock.POLL_SECONDS)
        socket_folder.make(self._sockets, account.of_server(self._cluster.path))

    def _launch(self) -> int:
        found = binaries.find()
        user = account.of_server(self._cluster.path)
        programs = binaries.reachable(found, user)
        supervisor = self.folder / "supervisor.lock"
        server = self.folder / "server.lock"
        with (
            lock.held(supervisor, timeout=5, refusal=f"{supervisor} is held.") as supervisor_lock,
            lock.held(server, timeout=STOP_SECONDS, refusal=self._orphan()) as server_lock,
        ):
            for name in ("keep", "stop"):
                (self.folder / name).unlink(missing_ok=True)
            self._cluster.create(found, programs, user, durable=self.durable, lock=server_lock)
            socket_folder.make(self._sockets, user)
            self._cluster.clear_stale_pid(self._sockets)
            orders: dict[str, object] = {
                "command": self._command(programs),
                "environment": binaries.environment(),
                "account": user.process_options(),
                "sockets": str(self._sockets),
                "supervisor_lock": supervisor_lock,
                "server_lock": server_lock,
            }
            return self._supervise(orders, (supervisor_lock, server_lock))

    def _orphan(self) -> str:
        found = self._cluster.postmaster()
        return (
            f"A server of {self.folder} lost its supervisor and still runs"
            f"{f' (pid {found[0]})' if found else ''}. Stop it: "
            f"pg_ctl -D {self._cluster.path} stop -m fast"
        )

    def _command(self, programs: Path) -> list[str]:
        settings = {**SETTINGS, **(DURABLE if self.durable else FLEETING)}
        settings["unix_socket_directories"] = str(self._sockets)
        command = [str(programs / "postgres"), "-D", str(self._cluster.path.resolve())]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _supervise(self, orders: dict[str, object], locks: tuple[int, int]) -> int:
        # By path, isolated: it must start whatever the caller did to sys.path.
        program = [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py"))]
        with open(self.folder / "server.log", "ab") as log:
            size = log.tell()
            subprocess.run(  # noqa: S603 (our own program, no shell)
                [*program, str(self.folder)],
                input=json.dumps(orders).encode(),
                stdout=log,
                stderr=log,
                cwd="/",
                env=binaries.environment(),
                pass_fds=locks,
                start_new_session=True,
                check=False,  # it failed when it does not hold its lock: the caller looks
            )
        return size

    def _create_database(self) -> None:
        import psycopg2
        from psycopg2.extensions import quote_ident  # pyright: ignore[reportUnknownVariableType]

        try:
            connection = psycopg2.connect(self.url_for("postgres"), connect_timeout=10)
            try:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("SELECT FROM pg_database WHERE datname = %s", [self.database])
                    if not cursor.rowcount:
                        cursor.execute(f"CREATE DATABASE {quote_ident(self.database, cursor)}")
            finally:
                connection.close()
        except psycopg2.Error as error:
            raise EmbeddedError(
                f"The server in {self.folder} runs, but the database {self.database} could not "
                f"be opened: {str(error).strip()}{self._log_tail(0)}"
            ) from error

    def _log_tail(self, start: int) -> str:
        path = self.folder / "server.log"
        try:
            with open(path, "rb") as log:
                log.seek(max(start, log.seek(0, os.SEEK_END) - 8192))
                lines = log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            return ""
        return f" The last lines of {path}:\n" + "\n".join(lines) if lines else ""
