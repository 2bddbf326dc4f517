"""The command line: what each command prints, and how it ends."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from service_helpers import empty_databases, new_session, new_user

from domains.users import Session, SessionService, User
from orm_core import KeyRing, initialize_db, use_key_ring
from orm_core.cli import main
from orm_core.settings import VARIABLES

ROOT = Path(__file__).parents[2]
NOBODY_LISTENS = "postgresql://bob:hunter2@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def _as_in_a_fresh_shell(monkeypatch, tmp_path):
    """No setting of this process's environment counts, and nothing of a command stays."""
    for _, variable, _ in VARIABLES:
        if variable == "ORM_CORE_DRIVER":
            continue  # the one that the tests run under
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ORM_CORE_EMBEDDED_DIR", str(tmp_path / "embedded"))
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    use_key_ring(None)
    yield
    use_key_ring(None)


@pytest.fixture
def migrated(clone_db, orm_core_server):
    """The URL of a database with the repository's schema."""
    return orm_core_server.url(clone_db.database)


@pytest.fixture
def empty(orm_core_server):
    """The URL of an empty database."""
    with empty_databases(orm_core_server) as make:
        yield make()


@pytest.fixture
def here(monkeypatch):
    """Work in the repository, where the migrations are."""
    monkeypatch.chdir(ROOT)


def run(*arguments, **options):
    """A command in this process; an exception that is no exit is raised."""
    result = CliRunner().invoke(main, [str(one) for one in arguments], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shell(*arguments, cwd, **environ):
    """A command in a process of its own."""
    return subprocess.run(
        [Path(sys.executable).with_name("orm-core"), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environ},
    )


def is_one_paragraph(text):
    return "Traceback" not in text and "\n\n" not in text.strip()


# -- help ---------------------------------------------------------------------------------------


def commands(command=main, path=()):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


ALL = list(commands())
each = pytest.mark.parametrize(
    ("path", "command"), ALL, ids=[" ".join(path) or "orm-core" for path, _ in ALL]
)


def test_the_walk_meets_commands_and_subcommands():
    assert {("db",), ("demo",), ("doctor",), ("metrics",), ("migrate", "apply")} <= {
        path for path, _ in ALL
    }


@each
def test_help_tells_what_a_command_does(path, command):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert f"Usage: main {' '.join(path)}".strip() in result.output
    assert command.help.splitlines()[0] in re.sub(r"\s+", " ", result.output)


@each
def test_each_option_of_a_command_is_explained(path, command):
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []


@each
def test_help_lists_each_subcommand_with_its_purpose(path, command):
    output = run(*path, "-h").output
    for name in command.list_commands(None) if isinstance(command, click.Group) else ():
        assert re.search(rf"^  {name} +\S", output, re.MULTILINE), name


def test_help_connects_to_nothing(tmp_path):
    run("migrate", "apply", "--help")
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_the_packages():
    result = run("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"orm-core, version \d+\.\d+\.\d+\S*\n", result.output)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["migrate", "nonsense"],
        ["migrate", "rollback", "--count", "x", "--yes"],
        ["migrate", "apply", "--url"],
        ["doctor", "extra"],
        ["metrics", "--nonsense"],
        ["demo", "--nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


# -- what all commands share --------------------------------------------------------------------

NEED_A_DATABASE = [
    ["metrics"],
    ["migrate", "apply"],
    ["migrate", "status"],
    ["migrate", "rollback", "--yes"],
]
need_a_database = pytest.mark.parametrize("arguments", NEED_A_DATABASE, ids=" ".join)


@need_a_database
def test_a_server_that_is_not_there_is_told_in_one_paragraph(here, arguments):
    result = run(*arguments, "--url", NOBODY_LISTENS)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Connection refused")
    assert is_one_paragraph(result.stderr)
    assert "hunter2" not in result.output


@need_a_database
@pytest.mark.parametrize(
    "url", ["mysql://bob:hunter2@h/x", "nonsense:hunter2", "postgresql://bob:hunter2@h:port/x"]
)
def test_a_url_that_is_none_is_told_in_one_paragraph(here, arguments, url):
    result = run(*arguments, "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The database URL")
    assert is_one_paragraph(result.stderr)
    assert "hunter2" not in result.output


def test_a_database_that_is_missing_is_named(here, migrated):
    result = run("migrate", "status", "--url", migrated.replace("_clone?", "_nowhere?"))
    assert result.exit_code == 1
    assert re.search(r"has no database '\w+_nowhere'", result.stderr)


def test_the_url_may_come_from_the_environment(here, migrated, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", migrated)
    result = run("migrate", "status")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_url_may_come_from_a_file(migrated, tmp_path):
    (tmp_path / ".env").write_text(f"DATABASE_URL={migrated}\n")
    result = run("migrate", "status", "--folder", ROOT / "migrations")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_option_wins_over_the_environment(here, migrated, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", NOBODY_LISTENS)
    assert run("migrate", "status", "--url", migrated).exit_code == 0


def test_without_a_url_the_embedded_server_is_used_and_one_line_says_so(tmp_path):
    done = shell("migrate", "apply", "--folder", ROOT / "migrations", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "embedded"
    assert done.stderr == f"No DATABASE_URL: using the embedded PostgreSQL in {folder}/.\n"
    assert done.stdout.endswith("migration(s) applied.\n")
    again = shell("migrate", "status", "--folder", ROOT / "migrations", cwd=tmp_path)
    assert ", 0 pending." in again.stdout


def test_an_error_in_a_process_of_its_own_is_one_paragraph(tmp_path):
    done = shell("metrics", "--url", NOBODY_LISTENS, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: Connection refused")
    assert is_one_paragraph(done.stderr)


@pytest.mark.parametrize("command", ["doctor", "metrics"])
def test_a_domain_that_cannot_be_imported_is_told_in_one_paragraph(tmp_path, migrated, command):
    folder = tmp_path / "domains/billing"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import no_such_module\n")
    done = shell(command, "--url", migrated, cwd=tmp_path)
    assert done.returncode == 1
    assert "no_such_module" in done.stdout + done.stderr
    assert "domains.billing" in done.stdout + done.stderr
    assert is_one_paragraph(done.stderr)


# -- migrate ------------------------------------------------------------------------------------

TABLE = """
    def migrate(migrator, database, *, fake=False):
        migrator.sql("CREATE TABLE {0} (id int)")

    def rollback(migrator, database, *, fake=False):
        migrator.sql("DROP TABLE {0}")
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of two migrations."""
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("001_one", "002_two"):
        (folder / f"{name}.py").write_text(textwrap.dedent(TABLE.format(name[4:])))
    return folder


def lines(result):
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_apply_says_what_it_applied(empty, folder):
    result = run("migrate", "apply", "--url", empty, "--folder", folder)
    assert lines(result) == ["applied  001_one", "applied  002_two", "2 migration(s) applied."]


def test_apply_again_says_that_there_is_nothing(empty, folder):
    run("migrate", "apply", "--url", empty, "--folder", folder)
    again = run("migrate", "apply", "--url", empty, "--folder", folder)
    assert lines(again) == ["Nothing to apply."]


def test_apply_stops_after_the_file_that_is_named(empty, folder):
    result = run("migrate", "apply", "--url", empty, "--folder", folder, "--to", "001_one")
    assert lines(result) == ["applied  001_one", "1 migration(s) applied."]


def test_status_lists_applied_and_pending_files(empty, folder):
    run("migrate", "apply", "--url", empty, "--folder", folder, "--to", "001_one")
    result = run("migrate", "status", "--url", empty, "--folder", folder)
    assert lines(result) == ["applied  001_one", "pending  002_two", "1 applied, 1 pending."]


def test_rollback_undoes_the_latest(empty, folder):
    run("migrate", "apply", "--url", empty, "--folder", folder)
    result = run("migrate", "rollback", "--url", empty, "--folder", folder, "--yes")
    assert lines(result) == ["rolled back  002_two"]
    result = run("migrate", "status", "--url", empty, "--folder", folder)
    assert lines(result)[-1] == "1 applied, 1 pending."


def test_rollback_undoes_as_many_as_asked_for(empty, folder):
    run("migrate", "apply", "--url", empty, "--folder", folder)
    how = ("--url", empty, "--folder", folder, "--yes", "--count", 2)
    assert lines(run("migrate", "rollback", *how)) == [
        "rolled back  002_two",
        "rolled back  001_one",
    ]


def test_rollback_asks_first(empty, folder):
    run("migrate", "apply", "--url", empty, "--folder", folder)
    result = run("migrate", "rollback", "--url", empty, "--folder", folder, input="n\n")
    assert result.exit_code == 1
    assert "can drop tables with their rows" in result.stdout
    result = run("migrate", "status", "--url", empty, "--folder", folder)
    assert lines(result)[-1] == "2 applied, 0 pending."


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["apply", "--to", "009_none"], "009_none is not among the pending"),
        (["rollback", "--yes"], "Can't roll back 1: 0 migration"),
        (["rollback", "--yes", "--count", "0"], "Can't roll back 0"),
    ],
)
def test_what_cannot_be_done_ends_with_1(empty, folder, arguments, told):
    result = run("migrate", *arguments, "--url", empty, "--folder", folder)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {told}")


@pytest.mark.parametrize("command", [["apply"], ["status"], ["rollback", "--yes"]], ids=" ".join)
def test_a_folder_that_is_missing_ends_with_1(empty, tmp_path, command):
    result = run("migrate", *command, "--url", empty)
    assert result.exit_code == 1
    assert "no folder 'migrations'" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_folder_may_come_from_the_environment(empty, folder, monkeypatch):
    monkeypatch.setenv("ORM_CORE_MIGRATIONS_DIR", str(folder))
    assert lines(run("migrate", "apply", "--url", empty))[-1] == "2 migration(s) applied."


@pytest.mark.parametrize(
    "body", ['migrator.sql("SELECT nonsense")', "1 / 0", "import no_such_module", "nonsense("]
)
def test_a_file_that_fails_is_named_in_one_paragraph(empty, folder, tmp_path, body):
    text = f"def migrate(migrator, database, *, fake=False):\n    {body}\n"
    (folder / "002_two.py").write_text(text)
    done = shell("migrate", "apply", "--url", empty, "--folder", folder, cwd=tmp_path)
    assert done.returncode == 1
    assert is_one_paragraph(done.stderr)
    assert "002_two" in done.stderr


def test_a_failure_tells_what_was_applied_before(empty, folder):
    (folder / "002_two.py").write_text("def migrate(m, d, *, fake=False):\n    m.sql('nonsense')\n")
    CliRunner().invoke(main, ["migrate", "apply", "--url", empty, "--folder", str(folder)])
    result = run("migrate", "status", "--url", empty, "--folder", folder)
    assert lines(result)[-1] == "1 applied, 1 pending."


# -- metrics ------------------------------------------------------------------------------------


def test_metrics_are_printed_in_prometheus_format(migrated):
    output = run("metrics", "--url", migrated).stdout
    for name, kind in (
        ("db_queries_total", "counter"),
        ("db_query_duration_seconds", "histogram"),
        ("db_query_errors_total", "counter"),
        ("db_connection_pool_size", "gauge"),
        ("db_connections_in_use", "gauge"),
        ("db_connections_idle", "gauge"),
        ("db_connections_waiting", "gauge"),
    ):
        assert f"# TYPE {name} {kind}\n" in output
    assert 'db_queries_total{operation="select",table="other"}' in output


def test_metrics_show_that_a_connection_was_made(migrated):
    assert "\ndb_connection_pool_size 1.0\n" in run("metrics", "--url", migrated).stdout


# -- doctor -------------------------------------------------------------------------------------


def checks(result):
    return {line.split()[1]: line.split()[0] for line in result.stdout.splitlines()}


def test_the_doctor_finds_all_well(here, migrated, monkeypatch):
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", KeyRing.generate("k1"))
    result = run("doctor", "--url", migrated)
    assert result.exit_code == 0, result.output
    assert set(checks(result).values()) == {"ok"}
    assert set(checks(result)) >= {"connection", "registry", "migrations", "keys"}
    assert re.search(r"PostgreSQL \d+", result.stdout)
    assert "domains: orders, users" in result.stdout


def test_the_doctor_finds_pending_migrations(here, empty, monkeypatch):
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", KeyRing.generate())
    result = run("doctor", "--url", empty)
    assert result.exit_code == 1
    assert [name for name, state in checks(result).items() if state == "FAIL"] == ["migrations"]
    assert "orm-core migrate apply" in result.stdout


def test_the_doctor_changes_nothing(here, empty):
    run("doctor", "--url", empty)
    database = initialize_db(empty)
    assert database.get_tables() == []
    database.close_all()


def test_the_doctor_finds_no_keys(here, migrated):
    result = run("doctor", "--url", migrated)
    assert result.exit_code == 1
    assert [name for name, state in checks(result).items() if state == "FAIL"] == ["keys"]
    assert "ORM_CORE_TOKEN_KEYS" in result.stdout


@pytest.mark.parametrize("keys", ["k1:tellnobody", "tellnobody", "k1:" + "ab" * 31])
def test_the_doctor_finds_malformed_keys_and_does_not_show_them(here, migrated, monkeypatch, keys):
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", keys)
    result = run("doctor", "--url", migrated)
    assert result.exit_code == 1
    assert "FAIL  keys" in result.stdout
    assert keys.rpartition(":")[2] not in result.output


def test_the_doctor_finds_no_connection_and_shows_no_password(here):
    result = run("doctor", "--url", NOBODY_LISTENS)
    assert result.exit_code == 1
    assert checks(result)["connection"] == "FAIL"
    assert checks(result)["registry"] == "ok"
    assert "hunter2" not in result.output


def test_the_doctor_finds_no_migrations(migrated):
    result = run("doctor", "--url", migrated)
    assert result.exit_code == 1
    assert checks(result)["migrations"] == "FAIL"


def test_the_doctor_shows_no_key_when_all_is_well(here, migrated, monkeypatch):
    keys = KeyRing.generate("k1")
    monkeypatch.setenv("ORM_CORE_TOKEN_KEYS", keys)
    assert keys.partition(":")[2] not in run("doctor", "--url", migrated).output


def test_the_doctor_lists_all_settings(monkeypatch):
    result = run("doctor", "--settings")
    assert result.exit_code == 0
    for _, variable, purpose in VARIABLES:
        assert re.search(rf"^(un)?set +{variable} +{re.escape(purpose)}$", result.stdout, re.M)


def test_the_list_of_settings_says_which_are_set_and_not_to_what(monkeypatch, tmp_path):
    monkeypatch.delenv("ORM_CORE_DRIVER", raising=False)
    monkeypatch.setenv("DATABASE_URL", NOBODY_LISTENS)
    (tmp_path / ".env").write_text("ORM_CORE_TOKEN_KEYS=tellnobody\n")
    output = run("doctor", "--settings").stdout
    states = {line.split()[1]: line.split()[0] for line in output.splitlines()}
    set_ones = {name for name, state in states.items() if state == "set"}
    assert set_ones == {"DATABASE_URL", "ORM_CORE_TOKEN_KEYS", "ORM_CORE_EMBEDDED_DIR"}
    assert "hunter2" not in output
    assert "tellnobody" not in output


# -- demo on a database of somebody's -----------------------------------------------------------


@pytest.fixture
def somebodys(migrated):
    """The URL of a database with a user and a deleted session of hers."""
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    SessionService.soft_delete(new_session(new_user(email="ada@example.com")).id)
    return migrated


def test_the_demo_leaves_the_rows_of_others_alone(here, somebodys):
    assert run("demo", "--url", somebodys).exit_code == 0
    initialize_db(somebodys)
    assert [user.email for user in User.with_deleted()] == ["ada@example.com"]
    assert Session.with_deleted().count() == 1


def test_the_demo_speaks_of_its_own_rows(here, somebodys):
    output = run("demo", "--url", somebodys).stdout
    assert "users before: 2, after: 2" in output
    assert "sessions that went with her: 1" in output


def test_the_demo_tells_of_a_server_that_is_not_there_in_one_paragraph(here):
    result = run("demo", "--url", NOBODY_LISTENS)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Connection refused")
    assert is_one_paragraph(result.stderr)
    assert "hunter2" not in result.output
