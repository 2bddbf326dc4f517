"""The data directory: where it lies, its creation by initdb, its version, its pid file."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from orm_core.embedded import shelter
from orm_core.embedded.account import Account
from orm_core.embedded.binaries import Binaries, environment, locale
from orm_core.errors import EmbeddedError


class Cluster:
    """The data directory `folder`/data, or the one in the shelter that it links to."""

    def __init__(self, folder: Path) -> None:
        self.path: Path = folder / "data"
        self._aside = folder / "data.new"

    @property
    def version(self) -> str | None:
        """The major version that wrote the data, None when there is none."""
        try:
            return (self.path / "PG_VERSION").read_text().strip()
        except OSError:
            return None

    def postmaster(self) -> tuple[int, str] | None:
        """Return the pid and the state ("ready", "starting", ...) in the server's pid file.

        The file outlives a killed server: it proves nothing without the supervisor's lock.
        """
        try:
            lines = (self.path / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), lines[7].strip() if len(lines) > 7 else "starting"
        except (OSError, ValueError, IndexError):
            return None

    def create(
        self, binaries: Binaries, programs: Path, account: Account, *, durable: bool, lock: int
    ) -> None:
        """Run initdb, as `account`, when there is no data directory yet.

        `lock` is a descriptor that initdb keeps open. Raises EmbeddedError when initdb fails,
        and when the data is another major version's.
        """
        if self.path.is_symlink() and not self.path.exists():
            raise EmbeddedError(
                f"{self.path} leads to {os.readlink(self.path)}, which is not there. Bring that "
                f"folder back, or delete {self.path} to start with an empty database."
            )
        if self.path.exists():
            self._check_version(binaries)
            return
        self.discard_aside()
        try:
            self._place(account)
            self._initdb(binaries, programs, account, durable=durable, lock=lock)
            self._aside.rename(self.path)
        finally:
            self.discard_aside()

    def discard_aside(self) -> None:
        """Delete what an unfinished creation left."""
        _delete(self._aside)

    def delete(self) -> None:
        """Delete the data, also where it is in the shelter."""
        self.discard_aside()
        _delete(self.path)

    def clear_stale_pid(self, sockets: Path) -> None:
        """Delete the pid and socket files of a server that is gone; call with its lock held.

        PostgreSQL would take any live process with the pid in them for the server. Raises
        EmbeddedError when that process is one: started by hand, without our lock.
        """
        found = self.postmaster()
        if found and found[0] > 0 and _works_in(found[0], self.path):
            raise EmbeddedError(
                f"A PostgreSQL server that orm_core did not start (pid {found[0]}) uses the data "
                f"directory {self.path}. Stop it: pg_ctl -D {self.path} stop"
            )
        for leftover in (self.path / "postmaster.pid", *sockets.glob(".s.PGSQL.*")):
            leftover.unlink(missing_ok=True)

    def _check_version(self, binaries: Binaries) -> None:
        if self.version == str(binaries.major):
            return
        if self.version is None:
            raise EmbeddedError(
                f"{self.path} is not a PostgreSQL data directory: it has no PG_VERSION file. "
                "Move it away, or use another folder."
            )
        raise EmbeddedError(
            f"The data directory {self.path} was written by PostgreSQL {self.version}, but the "
            f"programs in {binaries.folder} are PostgreSQL {binaries.major}. Point "
            f"ORM_CORE_PG_BINDIR at programs of version {self.version} (and move the data with "
            "pg_dump and psql if you want the newer one), or move the directory away to start "
            "with an empty database."
        )

    def _place(self, account: Account) -> None:
        if account.reaches(self._aside):
            self._aside.mkdir(mode=0o700)
        else:
            place = tempfile.mkdtemp(prefix="data-", dir=shelter.folder(account))
            self._aside.symlink_to(place)
        if account.dropped:
            os.chown(self._aside.resolve(), account.uid, account.gid)

    def _initdb(
        self, binaries: Binaries, programs: Path, account: Account, *, durable: bool, lock: int
    ) -> None:
        command = [str(programs / "initdb"), "-D", str(self._aside.resolve())]
        command += ["--username=postgres"]
        command += ["--encoding=UTF8", f"--locale={locale()}", "--lc-messages=C"]
        if binaries.major >= 17:
            # The same order and case folding on every system, for all of Unicode.
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--auth-local=trust", "--auth-host=reject", "--no-instructions"]
        if not durable:
            command += ["--no-sync"]
        answer = subprocess.run(  # noqa: S603 (our own command, no shell)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env=environment(),
            pass_fds=(lock,),
            **account.process_options(),
        )
        if answer.returncode:
            raise EmbeddedError(
                f"initdb could not create the data directory {self.path} (exit code "
                f"{answer.returncode}); is the disk full? Its last lines:\n"
                + "\n".join(answer.stdout.strip().splitlines()[-8:])
            )


def _works_in(pid: int, data: Path) -> bool:
    try:
        os.kill(pid, 0)  # a question, not a signal
    except (ProcessLookupError, PermissionError):
        return False
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", data)  # a postmaster never leaves it
    except OSError:
        pass
    command = ["ps", "-p", str(pid), "-o", "command="]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return str(data) in answer.stdout or str(data.resolve()) in answer.stdout


def _delete(path: Path) -> None:
    if path.is_symlink():
        shutil.rmtree(path.resolve(), ignore_errors=True)
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
