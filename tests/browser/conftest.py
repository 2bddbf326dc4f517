"""A studio in a process of its own, and a headless Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_postgresql.janitor import DatabaseJanitor

HERE = Path(__file__).parent
#: what Chromium needs in a container, as root
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
MIGRATIONS = HERE.parents[1] / "migrations"


def chromium_path() -> str | None:
    """Where a Chromium of this machine is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def studio_at(url: str) -> Iterator[str]:
    """The address of a studio on a fresh database, while it runs."""
    process = subprocess.Popen(
        [sys.executable, HERE / "serve.py", url, MIGRATIONS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, process.communicate()[1]
        yield address.rstrip("/")
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser; its tests are skipped where there is none."""
    if os.environ.get("CI"):
        pytest.skip("browser tests do not run in CI")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason='no Playwright: pip install -e ".[browser]"'
    )
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(chromium: Any, orm_core_server: Any) -> Iterator[str]:
    """The address of a studio with three domains."""
    name = f"orm_core_browser_{os.getpid()}"
    with (
        DatabaseJanitor(
            user=orm_core_server.user,
            host=orm_core_server.host,
            port=orm_core_server.port,
            password=orm_core_server.password,
            dbname=name,
        ),
        studio_at(orm_core_server.url(name)) as found,
    ):
        yield found


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    """A page at the studio's address; what the browser complains about fails the test."""
    context = chromium.new_context(
        base_url=address, viewport={"width": 1280, "height": 800}, timezone_id="Europe/Berlin"
    )
    context.set_default_timeout(15_000)
    found = context.new_page()
    complaints: list[str] = []
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "status of 4" not in message.text
            else None
        ),
    )
    yield found
    context.close()
    assert complaints == []
