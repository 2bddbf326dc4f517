"""``python tests/browser/screenshots.py``: the pictures of docs/images/studio.

Each page at both widths and in both themes. Needs what the browser tests need, and Inter as the
font of the system, or the pictures show another one.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from typing import Any

from conftest import ARGUMENTS, HERE, chromium_path, studio_at
from PIL import Image
from playwright.sync_api import sync_playwright

from orm_core.embedded import EmbeddedPostgres

FOLDER = HERE.parents[1] / "docs" / "images" / "studio"
SIZES = {1280: 800, 390: 780}
THEMES = ("light", "dark")
PAGES = (
    "start", "rows", "filter", "row", "structure", "edit", "cell", "conflict", "dashboard",
    "migrations", "diagram", "query", "plan", "seed", "empty", "error",
)  # fmt: skip
QUERY = """SELECT p.name, count(*) AS subscriptions, sum(i.amount) AS amount
FROM plans AS p
JOIN subscriptions AS s ON s.plan_id = p.id
LEFT JOIN invoices AS i ON i.subscription_id = s.id AND i.state = 'paid'
GROUP BY p.name
ORDER BY amount DESC NULLS LAST"""


def visit(page: Any, name: str) -> None:
    """Bring the page into the state that its picture shows."""
    match name:
        case "start":
            page.goto("/")
        case "rows":
            page.goto("/sessions?_deleted=1")
        case "filter":
            page.goto("/users?email__contains=ada&_sort=-created_at&_deleted=1")
            page.get_by_text("Filter", exact=True).click()
        case "row":
            page.goto("/users?_sort=-id")
            page.locator("[data-open]").nth(2).click()
            page.locator("dl.fields").wait_for()
        case "structure":
            page.goto("/orders/-/structure")
        case "edit":
            page.goto("/invoices?state=sent")
            page.locator("[data-open]").nth(1).click()
            page.locator("[data-edit]").click()
            page.locator("[data-form]").wait_for()
        case "cell":
            page.goto("/plans")
            page.locator("[data-cell$='/name']").nth(1).dblclick()
            page.locator(".in-cell").wait_for()
        case "conflict":
            page.goto("/invoices?state=draft&notes__null=1")
            page.locator("[data-open]").nth(1).click()
            page.locator("[data-edit]").click()
            other = page.context.new_page()
            other.goto(page.url)
            other.locator("[name='value.state']").select_option("sent")
            other.get_by_role("button", name="Save").click()
            other.get_by_text("Saved: state.").wait_for()
            other.close()
            page.locator("[name='value.notes']").fill("To be sent on Monday")
            page.get_by_role("button", name="Save").click()
            page.get_by_role("heading", name="Somebody changed this row").wait_for()
        case "dashboard":
            for path in ("/users", "/orders", "/invoices?_sort=amount", "/-/dashboard"):
                page.goto(path)
            page.wait_for_timeout(6_000)
        case "migrations":
            page.goto("/-/migrations")
            page.locator("summary").last.click()
        case "diagram":
            page.goto("/-/diagram")
        case "query" | "plan":
            page.goto("/-/sql")
            page.locator("#sql").fill(QUERY)
            page.get_by_role("button", name="Run" if name == "query" else "Explain").click()
            page.locator("table").wait_for()
        case "seed":
            page.goto("/-/seed")
        case "empty":
            page.goto("/users?email=nobody")
        case "error":
            page.goto("/orders?total=cheap")


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(folder, durable=False, database="shop") as server,
        studio_at(server.start().url) as address,
        sync_playwright() as playwright,
    ):
        for width, theme in itertools.product(SIZES, THEMES):
            browser = playwright.chromium.launch(
                executable_path=chromium_path(), args=list(ARGUMENTS)
            )
            context = browser.new_context(
                base_url=address,
                viewport={"width": width, "height": SIZES[width]},
                color_scheme=theme,
            )
            for name in names or PAGES:
                page = context.new_page()
                visit(page, name)
                path = FOLDER / f"{name}-{width}-{theme}.png"
                page.screenshot(path=path, full_page=name == "diagram" and width > 1000)
                Image.open(path).convert("RGB").quantize(192).save(path, optimize=True)
                page.close()
            browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
