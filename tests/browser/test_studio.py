"""The studio as a person uses it: clicking, typing, on a phone, without JavaScript."""

import csv
import itertools
import re

import pytest

pytestmark = pytest.mark.browser

_number = itertools.count(1)

PAGES = {
    "start": "/",
    "rows": "/users?_deleted=1&_sort=-created_at",
    "sessions": "/sessions",
    "filtered": "/users?email__contains=ada",
    "empty": "/users?email=nobody",
    "structure": "/invoices/-/structure",
    "new": "/sessions/-/new",
    "dashboard": "/-/dashboard",
    "migrations": "/-/migrations",
    "diagram": "/-/diagram",
    "query": "/-/sql",
    "seed": "/-/seed",
    "error": "/orders?total=cheap",
    "missing": "/users/0190a9a3-0000-7000-8000-000000000000",
}


def first_row(page, path):
    """Open the first row of a view; its address."""
    page.goto(path)
    page.locator("[data-open]").first.click()
    page.wait_for_url(re.compile(r"/[0-9a-f-]{36}$"))
    return page.url


def new_user(page):
    """Make a user by the form; the address of her row and her e-mail."""
    number = next(_number)
    email = f"clicked{number}@example.com"
    page.goto("/users/-/new")
    page.get_by_label("email text").fill(email)
    page.get_by_label("first_name text").fill("Clicked")
    page.get_by_label("provider_account_id text").fill(f"clicked-{number}")
    page.get_by_role("button", name="Create").click()
    page.get_by_text("The row is there.").wait_for()
    return page.url, email


# -- looking ------------------------------------------------------------------------------------


def test_somebody_finds_a_row_by_clicking(page):
    page.goto("/")
    page.get_by_role("link", name=re.compile("^users 4")).first.click()
    page.get_by_role("link", name="Next").click()
    page.get_by_role("link", name="Previous").click()
    page.get_by_role("link", name="last_name").click()
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Column", exact=True).select_option("first_name")
    page.get_by_label("Condition", exact=True).select_option("starts")
    page.get_by_label("Value", exact=True).fill("Ad")
    page.get_by_role("button", name="Add").click()
    assert page.get_by_text("first_name starts with Ad").is_visible()
    assert "_sort=last_name" in page.url
    rows = page.locator("[data-row]")
    assert rows.count() == page.locator("[data-row]", has_text="Ada").count() > 0
    page.locator("[data-open]").first.click()
    page.get_by_role("link", name=re.compile("orders by user_id")).click()
    assert "/orders?user_id=" in page.url


def test_the_filter_offers_only_what_fits_the_column(page):
    page.goto("/invoices")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Column", exact=True).select_option("state")
    options = page.locator("[data-operator] option:not([disabled])").all_text_contents()
    assert options == ["is", "is not", "is one of", "is NULL", "is not NULL"]
    assert page.locator("#choices option").count() == 4
    page.get_by_label("Condition", exact=True).select_option("null")
    assert page.get_by_label("Value", exact=True).is_hidden()


def test_columns_are_chosen_by_ticking_them(page):
    page.goto("/users")
    page.get_by_text("Columns", exact=True).click()
    for name in ("avatar", "provider_account_id", "created_at", "updated_at", "deleted_at"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    page.get_by_role("button", name="Show").click()
    heads = page.locator("thead th a").all_text_contents()
    assert heads == ["id", "email", "first_name", "last_name"]


def test_the_keyboard_moves_opens_and_searches(page):
    page.goto("/users")
    keys = page.locator("[data-open]").evaluate_all("all => all.map(one => one.title)")
    for key in "jjjk":
        page.keyboard.press(key)
    assert page.locator("tr.current [data-open]").get_attribute("title") == keys[1]
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/users/{keys[1]}")
    page.go_back()
    page.keyboard.press("/")
    page.keyboard.type("turing")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "BODY"
    page.keyboard.press("/")
    page.keyboard.type("turing")
    page.keyboard.press("Enter")
    page.wait_for_url("**_q=turing**")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").is_hidden()
    page.goto("/users")
    page.keyboard.press("]")
    page.wait_for_url("**_after=**")


def test_an_export_is_a_file_with_the_rows_of_the_view(page, tmp_path):
    page.goto("/orders?total__gt=9000&_sort=-total")
    shown = page.locator("[data-open]").evaluate_all("all => all.map(one => one.title)")
    page.get_by_text("Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "orders.csv"
    path = tmp_path / "orders.csv"
    download.value.save_as(path)
    with path.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)][: len(shown)] == shown


def test_the_colours_are_chosen_and_stay(page):
    page.goto("/users")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark").click()
    page.wait_for_url("**/users")
    page.goto("/orders")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.get_by_role("button", name="Auto").click()


def test_a_query_is_run_by_the_keyboard_and_explained(page):
    page.goto("/-/sql")
    page.locator("#sql").fill("SELECT state, count(*) FROM invoices GROUP BY 1 ORDER BY 1")
    page.keyboard.press("Control+Enter")
    page.get_by_text("4 rows in").wait_for()
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("Seq Scan on invoices").wait_for()
    page.locator("#sql").fill("SELECT * FROM sessions")
    page.get_by_role("button", name="Run").click()
    assert page.get_by_role("alert").text_content().startswith("The query reads provider_access")


def test_the_diagram_shows_what_belongs_to_a_table(page):
    page.goto("/-/diagram")
    page.locator("[data-box='orders']").focus()
    assert page.locator(".line.lit").count() == 2
    page.keyboard.press("Enter")
    page.wait_for_url("**/orders")


def test_the_dashboard_renews_itself(page):
    page.goto("/-/dashboard")
    page.evaluate("document.querySelector('[data-live]').dataset.old = 'yes'")
    page.wait_for_selector("[data-live]:not([data-old])", timeout=15_000)


# -- changing -----------------------------------------------------------------------------------


def test_a_row_is_made_changed_and_changed_back(page):
    address, email = new_user(page)
    page.keyboard.press("e")
    page.wait_for_url("**/-/edit")
    page.get_by_label("last_name text").fill("Twice")
    assert not page.locator("[name='null.last_name']").is_checked()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved: last_name.").wait_for()
    assert page.locator("dd", has_text="Twice").count() == 1
    page.get_by_role("button", name="Undo").click()
    page.wait_for_url(address)
    assert page.locator("dd", has_text="Twice").count() == 0
    assert email in page.content()


def test_a_cell_is_edited_in_its_place_by_pointer_and_keyboard(page):
    _, email = new_user(page)
    page.goto(f"/users?email={email}")
    cell = page.locator("[data-cell$='/first_name']")
    cell.dblclick()
    cell.locator("textarea").fill("Pointed")
    cell.get_by_role("button", name="Save").click()
    page.locator("[data-cell$='/first_name'] >> text=Pointed").wait_for()
    for key in ("j", "l", "l", "e"):
        page.keyboard.press(key)
    cell.locator("textarea").wait_for()
    page.keyboard.type("Typed")
    page.keyboard.press("Control+Enter")
    page.locator("[data-cell$='/first_name'] >> text=Typed").wait_for()
    page.keyboard.press("e")
    cell.locator("textarea").fill("Left")
    page.keyboard.press("Escape")
    assert cell.inner_text() == "Typed"
    assert page.get_by_role("button", name="Undo").is_visible()


def test_a_cell_says_what_is_wrong_with_a_value(page):
    page.goto("/orders")
    cell = page.locator("[data-cell$='/total']").first
    before = cell.inner_text()
    cell.dblclick()
    cell.locator("input:not([type=checkbox]):not([type=hidden])").fill("a lot")
    cell.get_by_role("button", name="Save").click()
    alert = cell.get_by_role("alert")
    alert.wait_for()
    assert alert.text_content() == "Order.total must be a whole number."
    page.keyboard.press("Escape")
    assert cell.inner_text() == before


def test_a_conflict_is_shown_and_decided(page):
    address, _ = new_user(page)
    page.goto(f"{address}/-/edit")
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_label("first_name text").fill("Theirs")
    other.get_by_role("button", name="Save").click()
    other.get_by_text("Saved: first_name.").wait_for()
    page.get_by_label("first_name text").fill("Mine")
    page.get_by_role("button", name="Save").click()
    assert page.get_by_role("heading", name="Somebody changed this row").is_visible()
    assert page.locator("tr", has_text="first_name").inner_text().split() == [
        "first_name", "Theirs", "Mine",
    ]  # fmt: skip
    page.get_by_role("button", name="Write mine over it").click()
    page.get_by_text("Saved: first_name.").wait_for()
    assert page.locator("dd", has_text="Mine").count() == 1


def test_a_row_is_deleted_and_restored(page):
    address, email = new_user(page)
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("Deleted; the row is kept").wait_for()
    page.goto(f"/users?email={email}")
    assert page.get_by_text("No row matches.").is_visible()
    page.get_by_role("link", name="Look among deleted ones too").click()
    assert page.locator("tr.deleted").count() == 1
    page.goto(address)
    page.get_by_role("button", name="Restore").click()
    page.get_by_text("Restored.").wait_for()
    assert page.get_by_role("button", name="Delete").is_visible()


def test_several_rows_are_chosen_and_deleted_together(page):
    emails = [new_user(page)[1] for _ in range(3)]
    page.goto(f"/users?email__in={','.join(emails)}")
    page.keyboard.press("j")
    page.keyboard.press("x")
    assert page.get_by_text("1 row selected:").is_visible()
    page.get_by_label("Select all rows of this page").check()
    assert page.get_by_text("3 rows selected:").is_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("3 of 3 row(s) deleted.").wait_for()
    assert page.get_by_text("No row matches.").is_visible()
    page.get_by_role("button", name="Undo").click()
    page.goto(f"/users?email__in={','.join(emails)}")
    assert page.locator("[data-row]").count() == 3


# -- for everybody -----------------------------------------------------------------------------


def test_every_page_reads_and_filters_without_javascript(chromium, address):
    context = chromium.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    for path in PAGES.values():
        page.goto(path)
        assert page.locator("h1").is_visible()
    page.goto("/users")
    page.locator("summary", has_text="Filter").click()
    page.locator("[name='_column']").select_option("email")
    page.locator("[name='_operator']").select_option("contains")
    page.locator("[name='_value']").fill("ada")
    page.get_by_role("button", name="Add").click()
    assert "email__contains=ada" in page.url
    page.locator("[data-open]").first.click()
    assert page.locator("dl.fields").is_visible()
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_have_no_serious_finding_of_axe_and_fit_their_width(chromium, address, width, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = chromium.new_context(
        base_url=address, color_scheme=theme, viewport={"width": width, "height": 800}
    )
    page = context.new_page()
    paths = dict(PAGES)
    paths["row"] = first_row(page, "/sessions")
    paths["edit"] = f"{first_row(page, '/invoices')}/-/edit"
    found = []
    for name, path in paths.items():
        page.goto(path)
        if name in ("rows", "filtered"):
            page.locator("summary", has_text="Filter" if name == "rows" else "Columns").click()
        for violation in axe.run(page).response["violations"]:
            targets = [node["target"] for node in violation["nodes"]][:3]
            found.append(f"{name}: {violation['impact']} {violation['id']} {targets}")
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if beyond > 0:
            found.append(f"{name}: {beyond} pixels beyond the window")
    context.close()
    assert not found, "\n".join(found)


def test_a_page_does_not_jump_while_it_loads(page):
    watch = """() => { window.jumps = 0; new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.jumps += entry.value;
    }).observe({type: "layout-shift", buffered: true}); }"""
    for path in ("/users", "/sessions", "/-/dashboard", "/-/diagram"):
        page.goto(path)
        page.evaluate(watch)
        page.wait_for_timeout(300)
        assert page.evaluate("window.jumps") < 0.02, path


def test_the_focus_is_seen_and_the_first_stop_skips_to_the_content(page):
    page.goto("/users")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") > 0
    page.keyboard.press("Tab")
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(style) == "solid"


def test_the_menu_of_a_narrow_page_opens_and_closes(chromium, address):
    context = chromium.new_context(base_url=address, viewport={"width": 390, "height": 780})
    page = context.new_page()
    page.goto("/users")
    assert page.get_by_role("link", name=re.compile("^orders")).is_hidden()
    page.get_by_role("link", name="Menu", exact=True).click()
    page.get_by_role("link", name=re.compile("^orders")).click()
    page.wait_for_url("**/orders")
    context.close()
