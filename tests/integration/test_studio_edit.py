"""Changing rows in the studio: forms, cells, conflicts, delete and restore, undo."""

import html
import html.parser
import itertools
import re
import threading
from decimal import Decimal

import pytest
from service_helpers import new_session, new_user, session_data, user_data
from studio_helpers import (
    ArtistsService,
    Mood,
    Piece,
    PiecesService,
    Shelf,
    ShelvesService,
    Stamp,
    browser,
    hidden,
    words,
)

from domains.users import Session, SessionService, User, UsersService
from orm_core import Secret, db
from orm_core.studio import edits, explorer
from orm_core.studio.tables import Tables

_number = itertools.count(1)


def new_piece(**given):
    return PiecesService.create({"code": f"e{next(_number)}", **given})


def form_of(edit, path):
    """What the form of a page holds when nobody types anything."""
    text = edit.get(path).get_data(as_text=True)
    form = {"_version": hidden(edit.get(path), "_version")}
    for name in re.findall(r'name="(null\.\w+)" value="1" checked', text):
        form[name] = "1"
    return form


def fresh(piece):
    return PiecesService.get(piece.id, include_deleted=True)


# -- new rows ---------------------------------------------------------------------------------------


def test_a_new_row_comes_from_the_services_create(edit, caplog):
    with caplog.at_level("INFO", "orm_core.studio"):
        page = edit.post(
            "/users/-/new",
            {
                "value.email": "grace@example.com",
                "value.first_name": "Grace",
                "null.last_name": "1",
                "value.avatar": "",
                "value.provider_account_id": "g-1",
            },
        )
    assert page.status_code == 303
    user = UsersService.find_by_email("grace@example.com")
    assert page.headers["Location"] == f"/users/{user.id}"
    assert (user.last_name, user.avatar) == (None, "")
    assert "User created" in caplog.text
    assert "grace" not in caplog.text


def test_each_kind_of_column_is_read_from_a_form(edit):
    artist = ArtistsService.create({"name": "Mary"})
    page = edit.post(
        "/studio_pieces/-/new",
        {
            "value.artist_id": str(artist.id),
            "value.code": "all-kinds",
            "value.title": "two\r\nlines",
            "value.mood": "stormy",
            "value.price": "12.50",
            "value.weight": "-1.5",
            "value.copies_made": "3",
            "value.on_loan": "true",
            "value.made_on": "1999-12-31",
            "value.tags": '["a", "b c"]',
            "value.details": '{"a": [1, null]}',
        },
    )
    assert page.status_code == 303, words(page)
    piece = Piece.get(code="all-kinds")
    assert piece.artist_id == artist.id
    assert piece.title == "two\nlines"
    assert piece.mood is Mood.STORMY
    assert (piece.price, piece.weight, piece.copies_made) == (Decimal("12.50"), -1.5, 3)
    assert (piece.on_loan, f"{piece.made_on}") == (True, "1999-12-31")
    assert (piece.tags, piece.details) == (["a", "b c"], {"a": [1, None]})


def test_what_a_form_leaves_out_gets_its_default(edit):
    data = {"value.code": "plain", "value.mood": "", "value.copies_made": "", "value.tags": ""}
    assert edit.post("/studio_pieces/-/new", data).status_code == 303
    piece = Piece.get(code="plain")
    assert (piece.mood, piece.copies_made, piece.tags) == (Mood.CALM, 0, [])
    assert piece.title is None


def test_a_secret_is_stored_encrypted_and_never_shown_again(edit):
    user = new_user()
    page = edit.post(
        "/sessions/-/new",
        {
            "value.user_id": str(user.id),
            "value.provider": "google",
            "value.provider_access_token": "hush-hush",
            "value.provider_account_id": "g",
            "value.expires_at": "2030-01-01 00:00",
        },
    )
    assert page.status_code == 303, words(page)
    session = Session.get(user=user)
    assert session.provider_access_token.reveal() == "hush-hush"
    for path in (page.headers["Location"], f"{page.headers['Location']}/-/edit"):
        assert "hush-hush" not in edit.get(path).get_data(as_text=True)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("price", "cheap", "Piece.price must be a number such as 12.50."),
        ("price", "123456789", "at most 8 digits"),
        ("made_on", "soon", "a date such as"),
        ("details", "{", "Piece.details must be JSON."),
        ("tags", '{"a": 1}', "a list in JSON"),
        ("mood", "sad", "one of: calm, stormy"),
        ("artist_id", "nobody", "a Artist or its id"),
        ("artist_id", "0190a9a3-0000-7000-8000-000000000000", "refers to"),
    ],
)
def test_a_value_that_does_not_fit_brings_the_form_back_with_all_that_was_typed(
    edit, name, text, problem
):
    data = {"value.code": f"w{next(_number)}", "value.title": "kept", f"value.{name}": text}
    page = edit.post("/studio_pieces/-/new", data)
    assert page.status_code == 400
    assert problem in words(page)
    assert "\nkept</textarea>" in page.get_data(as_text=True)
    assert not Piece.select().where(Piece.code == data["value.code"]).exists()


def test_a_key_that_is_taken_brings_the_form_back(edit):
    piece = new_piece()
    page = edit.post("/studio_pieces/-/new", {"value.code": piece.code})
    assert page.status_code == 400
    assert "another row has this key already" in words(page)


def test_a_table_without_a_service_is_not_edited(edit):
    Stamp.create(text="penny")
    page = edit.get("/studio_stamps/-/new")
    assert page.status_code == 400
    assert "has no service for studio_stamps" in words(page)
    assert "New row" not in words(edit.get("/studio_stamps"))


# -- changes ----------------------------------------------------------------------------------------


def test_only_what_differs_is_written_and_updated_at_moves(edit):
    piece = new_piece(title="before", price=Decimal("1.10"))
    form = form_of(edit, f"/studio_pieces/{piece.id}/-/edit")
    form |= {"value.title": "after", "value.price": "1.10", "value.code": piece.code}
    del form["null.artist_id"]
    page = edit.post(f"/studio_pieces/{piece.id}/-/edit", form)
    assert page.status_code == 303
    assert "Saved: title." in words(edit.get(page.headers["Location"]))
    after = fresh(piece)
    assert (after.title, after.price) == ("after", Decimal("1.10"))
    assert after.updated_at > piece.updated_at


def test_a_form_that_changes_nothing_writes_nothing(edit):
    piece = new_piece(title="same")
    form = form_of(edit, f"/studio_pieces/{piece.id}/-/edit") | {"value.title": "same"}
    page = edit.post(f"/studio_pieces/{piece.id}/-/edit", form)
    assert "Nothing was changed." in words(edit.get(page.headers["Location"]))
    assert fresh(piece).updated_at == piece.updated_at


def test_null_and_the_empty_text_are_two_values(edit):
    piece = new_piece(title="text")
    for data, expected in (({"value.title": ""}, ""), ({"null.title": "1"}, None)):
        form = {"_version": hidden(edit.get(f"/studio_pieces/{piece.id}/-/edit"), "_version")}
        edit.post(f"/studio_pieces/{piece.id}/-/edit", form | data)
        assert fresh(piece).title == expected


def test_a_secret_is_kept_when_the_form_says_nothing_of_it(edit):
    session = new_session()
    form = form_of(edit, f"/sessions/{session.id}/-/edit")
    form |= {"value.provider_access_token": "", "value.provider_scope": "email"}
    del form["null.provider_scope"]
    assert edit.post(f"/sessions/{session.id}/-/edit", form).status_code == 303
    after = SessionService.get(session.id)
    assert after.provider_scope == "email"
    assert after.provider_access_token == session.provider_access_token


def test_fields_that_the_server_keeps_are_not_taken_from_a_form(edit):
    piece = new_piece()
    form = form_of(edit, f"/studio_pieces/{piece.id}/-/edit")
    form |= {
        "value.created_at": "1999-01-01",
        "value.id": "0190a9a3-0000-7000-8000-000000000000",
        "value.deleted_at": "1999-01-01",
        "value.shout": "HA",
        "value.title": "x",
    }
    del form["null.title"]
    edit.post(f"/studio_pieces/{piece.id}/-/edit", form)
    after = fresh(piece)
    assert (after.title, after.created_at) == ("x", piece.created_at)
    assert after.shout == "X"


def test_a_row_that_somebody_changed_meanwhile_is_a_conflict(edit):
    piece = new_piece(title="opened")
    path = f"/studio_pieces/{piece.id}/-/edit"
    form = form_of(edit, path) | {"value.title": "mine"}
    PiecesService.update(piece.id, {"title": "theirs"})
    page = edit.post(path, form)
    assert page.status_code == 409
    assert "theirs mine" in words(page)
    assert fresh(piece).title == "theirs"
    # written over it only when that is said
    again = form | {"_version": hidden(page, "_version")}
    assert edit.post(path, again).status_code == 303
    assert fresh(piece).title == "mine"


def test_a_change_by_raw_sql_is_a_conflict_too(edit, studio_db):
    piece = new_piece(title="opened")
    path = f"/studio_pieces/{piece.id}/-/edit"
    form = form_of(edit, path) | {"value.title": "mine"}
    studio_db.execute_sql("UPDATE studio_pieces SET price = 1 WHERE id = %s", (str(piece.id),))
    assert edit.post(path, form).status_code == 409


def test_a_form_without_a_version_is_a_conflict(edit):
    piece = new_piece(title="kept")
    page = edit.post(f"/studio_pieces/{piece.id}/-/edit", {"value.title": "blind"})
    assert page.status_code == 409
    assert fresh(piece).title == "kept"


def test_of_two_who_save_at_once_one_is_told(edit):
    piece = new_piece(title="opened")
    path = f"/studio_pieces/{piece.id}/-/edit"
    form = form_of(edit, path)
    others = [browser(db, write=True) for _ in range(4)]
    found = []

    def save(other, text):
        found.append(other.post(path, form | {"value.title": text}).status_code)

    threads = [
        threading.Thread(target=save, args=(other, f"t{number}"))
        for number, other in enumerate(others)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        other.studio.close()
    assert sorted(found) == [303, 409, 409, 409]


def test_a_row_that_is_gone_or_deleted_is_not_edited(edit):
    piece = new_piece(title="kept")
    path = f"/studio_pieces/{piece.id}/-/edit"
    PiecesService.soft_delete(piece.id)
    form = form_of(edit, path) | {"value.title": "x"}
    page = edit.post(path, form)
    assert page.status_code == 404
    assert "restore it first" in words(page)
    PiecesService.hard_delete(piece.id)
    assert edit.post(path, form).status_code == 404


# -- cells ------------------------------------------------------------------------------------------


def test_a_cell_is_edited_in_its_place(edit):
    piece = new_piece(title="before")
    path = f"/studio_pieces/{piece.id}/-/cell/title"
    form = edit.get(path)
    assert "\nbefore</textarea>" in form.get_data(as_text=True)
    data = {"_version": hidden(form, "_version"), "value.title": "after", "value.code": "hidden"}
    cell = edit.post(path, data)
    assert cell.get_data(as_text=True).strip() == "after"
    after = fresh(piece)
    assert (after.title, after.code) == ("after", piece.code)


def test_a_cell_tells_a_problem_or_a_conflict_in_words(edit):
    piece = new_piece(price=Decimal(1))
    path = f"/studio_pieces/{piece.id}/-/cell/price"
    version = hidden(edit.get(path), "_version")
    ours = {"Origin": "http://localhost:4983", "Sec-Fetch-Site": "same-origin", "X-Fragment": "1"}
    data = {"_version": version, "value.price": "cheap"}
    answer = edit.post(path, data, headers=ours)
    assert answer.status_code == 400
    assert answer.get_data(as_text=True) == "Piece.price must be a number such as 12.50."
    PiecesService.update(piece.id, {"title": "x"})
    answer = edit.post(path, data | {"value.price": "2"}, headers=ours)
    assert answer.status_code == 409
    assert "<" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("column", ["id", "created_at", "shout", "nope"])
def test_what_is_not_ours_to_write_has_no_cell_to_edit(edit, column):
    piece = new_piece()
    assert edit.get(f"/studio_pieces/{piece.id}/-/cell/{column}").status_code == 400


def test_a_secret_has_no_cell_to_edit(edit):
    session = new_session()
    assert edit.get(f"/sessions/{session.id}/-/cell/provider_access_token").status_code == 400


# -- delete, restore, several, undo -------------------------------------------------------------------


def test_deleting_is_soft_takes_along_what_belongs_to_it_and_can_be_undone(edit):
    user = new_user()
    session = new_session(user)
    assert edit.post(f"/users/{user.id}/-/delete").status_code == 303
    assert UsersService.get(user.id, include_deleted=True).is_deleted
    assert SessionService.get(session.id, include_deleted=True).is_deleted
    page = edit.get(f"/users/{user.id}")
    assert "Undo" in words(page)
    assert "Restore" in words(page)
    assert edit.post("/-/undo").status_code == 303
    assert not SessionService.get(session.id).is_deleted
    assert "Undo the last change" not in words(edit.get(f"/users/{user.id}"))


def test_a_deleted_row_is_restored(edit):
    user = new_user()
    UsersService.soft_delete(user.id)
    assert edit.post(f"/users/{user.id}/-/restore").status_code == 303
    assert not UsersService.get(user.id).is_deleted


def test_a_restore_that_meets_a_taken_key_is_told(edit):
    gone = new_user()
    UsersService.soft_delete(gone.id)
    UsersService.create(user_data(email=gone.email))
    page = edit.post(f"/users/{gone.id}/-/restore")
    assert page.status_code == 400
    assert "another row has this key already" in words(page)


def test_several_rows_are_deleted_and_restored_together(edit):
    users = [new_user() for _ in range(3)]
    keys = [str(user.id) for user in users]
    data = {"key": keys, "action": "delete", "_query": "?_deleted=1"}
    page = edit.post("/users/-/bulk", data)
    assert page.headers["Location"] == "/users?_deleted=1"
    assert "3 of 3 row(s) deleted." in words(edit.get("/users"))
    assert User.select().where(User.id.in_(keys)).count() == 0
    edit.post("/users/-/bulk", data | {"action": "restore"})
    assert User.select().where(User.id.in_(keys)).count() == 3
    edit.post("/-/undo")
    assert User.select().where(User.id.in_(keys)).count() == 0


@pytest.mark.parametrize(
    "data",
    [
        {"action": "delete"},
        {"action": "hard_delete", "key": ["0190a9a3-0000-7000-8000-000000000000"]},
        {"action": "delete", "key": ["x"]},
        {"action": "delete", "key": [f"{n:032x}" for n in range(edits.MAX_BULK + 1)]},
    ],
)
def test_a_bulk_action_that_makes_no_sense_is_refused(edit, data):
    assert edit.post("/users/-/bulk", data).status_code == 400


def test_the_way_back_after_a_bulk_action_is_a_view_of_the_table(edit):
    user = new_user()
    data = {"key": [str(user.id)], "action": "delete", "_query": "//evil.example"}
    assert edit.post("/users/-/bulk", data).headers["Location"] == "/users"


def test_the_last_change_is_undone_unless_the_row_was_changed_since(edit):
    piece = new_piece(title="before", details={"a": 1})
    path = f"/studio_pieces/{piece.id}/-/edit"
    form = form_of(edit, path) | {"value.title": "after", "value.details": "[]"}
    edit.post(path, form)
    assert edit.post("/-/undo").status_code == 303
    assert (fresh(piece).title, fresh(piece).details) == ("before", {"a": 1})
    edit.post(path, form_of(edit, path) | {"value.title": "again"})
    PiecesService.update(piece.id, {"title": "theirs"})
    assert edit.post("/-/undo").status_code == 409
    assert fresh(piece).title == "theirs"
    assert edit.post("/-/undo").status_code == 400


def test_a_new_row_is_undone_by_a_soft_delete(edit):
    edit.post("/studio_artists/-/new", {"value.name": "undone"})
    edit.post("/-/undo")
    artist = ArtistsService.find({"name": "undone"}, include_deleted=True)
    assert artist is not None
    assert artist.is_deleted


def test_nothing_is_deleted_for_good(edit):
    stamp = Stamp.create(text="kept")
    assert edit.post(f"/studio_stamps/{stamp.id}/-/delete").status_code == 400
    assert Stamp.select().where(Stamp.id == stamp.id).exists()


def test_a_change_keeps_no_secret_in_memory(edit):
    session = SessionService.create(session_data(new_user()))
    path = f"/sessions/{session.id}/-/edit"
    form = form_of(edit, path) | {"value.provider_access_token": "new-token"}
    assert edit.post(path, form).status_code == 303
    assert SessionService.get(session.id).provider_access_token == Secret("new-token")
    assert edit.studio.editor.last is None
    assert "new-token" not in repr(vars(edit.studio.editor))


def test_forms_suggest_the_rows_that_a_reference_may_lead_to(edit):
    artist = ArtistsService.create({"name": "Suggested"})
    text = edit.get("/studio_pieces/-/new").get_data(as_text=True)
    assert f'<option value="{artist.id}">Suggested</option>' in text


def test_the_columns_of_a_form_are_those_that_people_write(edit):
    tables = Tables(edit.studio.registry)
    names = [column.name for column in edits.writable(tables["studio_pieces"])]
    assert not {"id", "created_at", "updated_at", "deleted_at", "shout"} & set(names)
    assert {"code", "title", "artist_id"} <= set(names)


# -- what a form does to a value that nobody touched --------------------------------------------------


ODD = [
    "two\r\nlines",
    "old\rmac",
    "\nfirst line empty",
    " blanks ",
    "",
    "tab\there",
    "</textarea>",
    "é\u2028x",
]


class Fields(html.parser.HTMLParser):
    """The fields of a page's form, read as a browser reads them."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.form = {}
        self._open = None

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "textarea":
            self._open, self._text = given["name"], []
        elif tag == "input" and "name" in given:
            boxed = given.get("type") == "checkbox"
            if not boxed or "checked" in given:
                self.form[given["name"]] = given.get("value", "on")

    def handle_data(self, text):
        if self._open:
            self._text.append(text)

    def handle_endtag(self, tag):
        if tag == "textarea":
            # HTML, "In body" insertion mode: a line end right after the tag is dropped
            text = "".join(self._text).replace("\r\n", "\n").replace("\r", "\n").removeprefix("\n")
            self.form[self._open], self._open = text.replace("\n", "\r\n"), None


@pytest.mark.parametrize("text", ODD)
def test_saving_an_untouched_form_changes_nothing(edit, text):
    shelf = ShelvesService.create({"id": f"odd{next(_number)}", "note": text, "text": text})
    path = f"/studio_shelves/{shelf.id}/-/edit"
    fields = Fields()
    fields.feed(edit.get(path).get_data(as_text=True))
    assert {"value.note", "value.text"} <= set(fields.form)
    page = edit.post(path, fields.form)
    assert "Nothing was changed." in words(edit.get(page.headers["Location"]))
    again = ShelvesService.get(shelf.id)
    assert (again.note, again.text, again.updated_at) == (text, text, shelf.updated_at)


def test_a_value_that_is_read_in_part_is_not_written_back(edit):
    whole = "x" * (explorer.WHOLE + 5)
    shelf = ShelvesService.create({"id": "long", "text": whole})
    path = "/studio_shelves/long/-/edit"
    page = edit.get(path)
    assert "too long to be edited here" in words(page)
    assert edit.get("/studio_shelves/long/-/cell/text").status_code == 400
    form = {"_version": hidden(page, "_version"), "value.note": "short"}
    assert edit.post(path, form).status_code == 303
    again = ShelvesService.get(shelf.id)
    assert (again.note, again.text) == ("short", whole)


@pytest.mark.parametrize("key", ["a/b", "x?y=z", "#1", "50%", "%2e", "ü b", "'\"", "a&b", "new"])
def test_a_row_is_found_and_edited_whatever_its_key_is(edit, key):
    ShelvesService.create({"id": key, "text": "before"})
    rows = edit.get("/studio_shelves", query_string={"id": key}).get_data(as_text=True)
    address = html.unescape(re.search(r'<th class="key" scope="row"><a href="([^"]+)"', rows)[1])
    assert edit.get(address).status_code == 200
    form = {"_version": hidden(edit.get(f"{address}/-/edit"), "_version"), "value.text": "after"}
    page = edit.post(f"{address}/-/edit", form)
    assert page.status_code == 303
    assert Shelf.get_by_id(key).text == "after"
    assert edit.get(page.headers["Location"]).status_code == 200
