"""The documentation is true: snippets run, links lead somewhere, tables equal the code."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import click
import pytest
from prometheus_client import REGISTRY
from pytest_postgresql.janitor import DatabaseJanitor

import orm_core
from orm_core import QueryError, Settings, errors, metrics
from orm_core.cli import main
from orm_core.database.pool_stats import REASONS
from orm_core.database.statements import OPERATIONS
from orm_core.settings import VARIABLES

TOP = Path(__file__).resolve().parents[2]
DOCS = TOP / "docs"
RUNNER = Path(__file__).with_name("run_page.py")
SERVICE = DOCS / "small_service"
PAGES = [TOP / "README.md", *sorted(DOCS.glob("*.md"))]
ALL_PAGES = [*PAGES, TOP / "CONTRIBUTING.md", TOP / "CHANGELOG.md"]
RUN = re.compile(r"^```(python|console)$", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(TOP))


def environment(url: str) -> dict[str, str]:
    """What a program of the docs finds: a database, the commands on PATH, no settings of ours."""
    given = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("ORM_CORE_") or name == "ORM_CORE_PG_BINDIR"
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return given | {"DATABASE_URL": url, "PATH": path}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if RUN.search(page.read_text())], ids=name_of
)
def test_the_snippets_of_a_page_run(page, clone_db, orm_core_server, tmp_path):
    shutil.copytree(TOP / "migrations", tmp_path / "migrations")
    done = subprocess.run(
        [sys.executable, "-W", "error", RUNNER, page],
        cwd=tmp_path,
        env=environment(orm_core_server.url(clone_db.database)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def run_text(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    page = folder / "page.md"
    page.write_text(text)
    return subprocess.run([sys.executable, RUNNER, page], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# Page\n\n```python\na = 1\nassert a == 2\n```\n", ", line 5"),
        ("<!-- setup\na = 1\nb\n-->\n", ", line 3"),
        ("```python\nprint(1)\n```\n\n<!-- output -->\n```text\n2\n```\n", ":7"),
        ("```console\n$ true\n$ echo 1\n2\n```\n", ":3"),
    ],
    ids=["snippet", "setup", "output", "command"],
)
def test_a_failing_snippet_names_its_page_and_line(text, line, tmp_path):
    done = run_text(text, tmp_path)
    assert done.returncode != 0
    assert re.search(rf'page\.md"?{re.escape(line)}\b', done.stderr)


def test_the_snippets_of_a_page_share_what_they_define(tmp_path):
    text = "```python\na = 1\n```\n\n<!-- setup\nb = a + 1\n-->\n\n```python\nassert b == 2\n```\n"
    assert run_text(text, tmp_path).stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_python_snippet_runs_or_says_why_not(page):
    fences = re.findall(r"^( *)```python(.*)$", page.read_text(), re.MULTILINE)
    assert all(indent == "" for indent, _ in fences)
    assert all(re.fullmatch(r"( no-run: .+)?", rest) for _, rest in fences)


# -- links ----------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_each_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_index_lists_each_page():
    text = (DOCS / "index.md").read_text()
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} == set(
        re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", text, re.MULTILINE)
    )


# -- tables ---------------------------------------------------------------------------------


def rows(page: str) -> list[list[str]]:
    """The cells of a page's tables, without the code's back quotes."""
    lines = re.findall(r"^\| (.+) \|$", (DOCS / page).read_text(), re.MULTILINE)
    return [[cell.strip("` ") for cell in line.split(" | ")] for line in lines]


def test_the_table_of_settings_equals_the_code():
    defaults = {field.name: field.default for field in fields(Settings)}
    expected = [
        [variable, "none" if defaults[name] is None else str(defaults[name]), purpose]
        for name, variable, purpose in VARIABLES
    ]
    assert [row for row in rows("settings.md") if len(row) == 3][2:] == expected


def commands(command: click.Command, words: str = "orm-core") -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield words
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, f"{words} {name}")


def test_the_table_of_commands_equals_the_command_line():
    documented = [row[0] for row in rows("cli.md") if row[0].startswith("orm-core ")]
    assert sorted(documented) == sorted(commands(main))


@pytest.mark.parametrize("command", sorted(commands(main)))
def test_the_long_options_of_a_command_are_documented(command):
    found: click.Command = main
    for word in command.split()[1:]:
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)  # type: ignore[assignment]
    text = (DOCS / "cli.md").read_text()
    options = [option for parameter in found.params for option in parameter.opts]
    assert [option for option in options if option.startswith("--") and option not in text] == []


def test_each_metric_is_documented_with_its_labels():
    labels = {
        "db_queries_total": "operation, table",
        "db_query_duration_seconds": "operation, table",
        "db_query_errors_total": "operation, table, kind",
        "db_encryptions_total": "key",
        "db_transaction_retries_total": "kind",
        "db_connections_opened_total": "none",
        "db_connections_closed_total": "reason",
        "db_connection_timeouts_total": "none",
    } | {
        family.name: "none"
        for family in metrics.PoolCollector().collect()
        if family.type != "counter"
    }
    exported = {family.name for family in REGISTRY.collect() if family.name.startswith("db_")}
    assert exported == {name.removesuffix("_total") for name in labels}
    table = {row[0]: row[2].replace("`", "") for row in rows("metrics.md") if len(row) == 4}
    assert {name: found for name, found in table.items() if name.startswith("db_")} == labels


KINDS = {
    error.kind
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, QueryError)
}


@pytest.mark.parametrize(
    ("label", "values"), [("operation", OPERATIONS), ("kind", KINDS), ("reason", REASONS)]
)
def test_the_values_of_a_label_are_documented(label, values):
    documented = next(row[1] for row in rows("metrics.md") if row[0] == label)
    assert set(documented.replace("`", "").split(", ")) == set(values)


@pytest.mark.parametrize("name", sorted(orm_core.__all__))
def test_each_public_name_is_documented(name):
    assert any(re.search(rf"\b{name}\b", page.read_text()) for page in PAGES)


# -- the small service ----------------------------------------------------------------------


@pytest.fixture
def empty_database(orm_core_server) -> Iterator[str]:
    name = f"orm_core_docs_{os.getpid()}"
    with DatabaseJanitor(
        user=orm_core_server.user,
        host=orm_core_server.host,
        port=orm_core_server.port,
        password=orm_core_server.password,
        dbname=name,
    ):
        yield orm_core_server.url(name)


@contextmanager
def serving(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """The URL of the small service while it runs, on a port that the system chose."""
    process = subprocess.Popen(
        [sys.executable, "service.py"],
        cwd=folder,
        env=env | {"PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, process.communicate()[1]
        yield url
    finally:
        process.terminate()
        process.communicate()


def fetch(url: str, body: bytes | None = None) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, body, timeout=30) as answer:
        return str(answer.read().decode())


def test_the_small_service_keeps_notes_and_shows_their_metrics(empty_database, tmp_path):
    folder = shutil.copytree(SERVICE, tmp_path / "service")
    env = environment(empty_database)
    subprocess.run([sys.executable, "deploy.py"], cwd=folder, env=env, check=True, timeout=60)
    with serving(folder, env) as url:
        assert fetch(url, b"buy milk") == "buy milk\n"
        exported = fetch(f"{url}/metrics").splitlines()
    assert 'db_queries_total{operation="insert",table="notes"} 1.0' in exported
    assert 'db_queries_total{operation="select",table="notes"} 1.0' in exported


def test_the_small_service_has_at_most_30_lines_of_python():
    code = [SERVICE / "domains/notes/__init__.py", SERVICE / "service.py", SERVICE / "deploy.py"]
    lines = [line for file in code for line in file.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30


def test_the_page_of_the_small_service_shows_its_files():
    page = (DOCS / "small-service.md").read_text()
    files = [file for file in SERVICE.rglob("*.py") if "__pycache__" not in file.parts]
    assert len(files) == 4
    assert [file for file in files if f"\n{file.read_text()}```" not in page] == []
