"""The studio's pages to read: tables, rows, filters, structure, export."""

import csv
import io
import itertools
import json
import logging
import re
from datetime import date
from decimal import Decimal

import pytest
from peewee import CompositeKey
from service_helpers import TOKEN, new_session, new_user
from studio_helpers import (
    PORT,
    ROOT,
    Artist,
    ArtistsService,
    Browser,
    Mood,
    PiecesService,
    Stamp,
    keys_of,
    link,
    words,
)

from domains.users import SessionService, User, UsersService
from orm_core import BaseModel, Domain, IntegerField, Registry, Secret, db, initialize_db
from orm_core.studio import explorer, filters
from orm_core.studio.app import Studio
from orm_core.studio.guard import Guard
from orm_core.studio.reader import reader_of
from orm_core.studio.tables import Tables

_number = itertools.count(1)


def new_piece(**given):
    return PiecesService.create({"code": f"p{next(_number)}", **given})


def test_the_start_page_lists_the_tables_of_each_domain(look):
    page = look.get("/")
    assert page.status_code == 200
    for name in ("users", "orders", "gallery", "studio_pieces", "sessions"):
        assert name in words(page)


def test_a_table_that_is_not_migrated_yet_says_so(look, studio_db):
    studio_db.execute_sql("ALTER TABLE studio_stamps RENAME TO elsewhere")
    try:
        assert "does not have this table yet" in words(look.get("/studio_stamps"))
        assert "does not have this table yet" in words(look.get("/studio_stamps/-/structure"))
        assert look.get("/").status_code == 200
    finally:
        studio_db.execute_sql("ALTER TABLE elsewhere RENAME TO studio_stamps")


def test_an_unknown_table_is_not_found(look):
    page = look.get("/pg_authid")
    assert page.status_code == 404
    assert "No registered domain has a table of that name" in words(page)


def test_a_page_of_rows_shows_the_newest_first_with_null_and_empty_text_told_apart(look):
    old = new_piece(title="")
    new = new_piece(title=None)
    page = look.get("/studio_pieces?_size=25")
    assert keys_of(page)[:2] == [str(new.id), str(old.id)]
    assert "empty text" in words(page)
    assert "NULL" in words(page)


def test_what_looks_like_html_is_shown_as_text(look):
    piece = new_piece(title="<img src=x onerror=alert(1)>", details={"<b>": "</script>"})
    for path in ("/studio_pieces", f"/studio_pieces/{piece.id}", "/studio_pieces?_q=<img"):
        text = look.get(path).get_data(as_text=True)
        assert "<img src=x" not in text
        assert '</script>"' not in text


# -- filters ------------------------------------------------------------------------------------


@pytest.fixture
def pieces(studio_db):
    """Three pieces that differ in everything, marked by a word in the title."""
    mark = f"mark{next(_number)}"
    artist = ArtistsService.create({"name": f"Frida {mark}"})
    plain = {"title": f"one {mark}", "price": Decimal("1.50"), "made_on": date(2020, 1, 1)}
    one = new_piece(
        **plain, artist=artist, weight=1.5, tags=["oil", "a b"], details={"lent": {"to": "x"}}
    )
    two = new_piece(
        title=f"two% {mark}", price=Decimal(20), mood=Mood.STORMY, copies_made=7, on_loan=True
    )
    three = new_piece(title=f"three_ {mark}", weight=-2.25, details=[1, 2])
    return mark, one, two, three


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("title__starts=one", "1"),
        ("title__contains=%25", "2"),
        ("title__contains=_", "3"),
        ("code__contains=a+text+longer+than+any+of+its+values", ""),
        ("title__ne=nothing", "123"),
        ("price=1.50", "1"),
        ("price__gt=1.5", "2"),
        ("price__gte=1.5", "12"),
        ("price__lt=20", "1"),
        ("price__null=1", "3"),
        ("price__notnull=1", "12"),
        ("weight__lte=0", "3"),
        ("made_on=2020-01-01", "1"),
        ("made_on__lt=2021-01-01", "1"),
        ("mood=stormy", "2"),
        ("mood__in=stormy,calm", "123"),
        ("mood__ne=stormy", "13"),
        ("on_loan=true", "2"),
        ("on_loan=0", "13"),
        ("copies_made__in=7,8", "2"),
        ("tags__has=oil", "1"),
        ("tags__has=a+b", "1"),
        ("details__has=lent", "1"),
        ("details__contains=%22to%22", "1"),
        ("shout__contains=TWO", "2"),
        ("created_at__gte=2020-01-01", "123"),
        ("created_at__lt=2020-01-01T00:00:00%2B02:00", ""),
        ("price__gt=1&mood=calm", "1"),
    ],
)
def test_a_condition_fits_the_type_of_its_column(look, pieces, condition, found):
    mark, *rows = pieces
    page = look.get(f"/studio_pieces?title__ends={mark}&{condition}")
    assert page.status_code == 200, words(page)
    expected = {str(rows[int(number) - 1].id) for number in found}
    assert set(keys_of(page)) == expected


def test_a_reference_is_filtered_by_its_field_or_its_column(look, pieces):
    _, one, _, _ = pieces
    for name in ("artist", "artist_id"):
        assert keys_of(look.get(f"/studio_pieces?{name}={one.artist_id}")) == [str(one.id)]


@pytest.mark.parametrize(
    "condition",
    [
        "nope=1",
        "title__like=x",
        "price=cheap",
        "price__contains=1",
        "made_on=yesterday",
        "mood=sad",
        "on_loan=maybe",
        "copies_made=99999999999999999999",
        "copies_made=1.5",
        "weight=nan",
        "artist_id=7",
        "id=' OR 1=1 --",
        "title=%00",
        "_sort=title; DROP TABLE users",
        "_sort=details",
        "_sort=-nope",
        "_columns=id,(SELECT 1)",
        "_size=1000000",
        "_deleted=maybe",
        "_nope=1",
        "_after=abc",
        "_before=W10",
        "title);DELETE FROM users;--=1",
        "_q=" + "a+" * 9,
        "&".join(f"title=x{number}" for number in range(21)),
        "copies_made__in=" + ",".join("1" * 101),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused_before_any_sql(look, condition):
    page = look.get(f"/studio_pieces?{condition}")
    assert page.status_code == 400
    assert "That does not fit" in words(page)


def test_the_quick_search_looks_into_all_columns_and_wants_all_words(look, pieces):
    mark, one, two, three = pieces
    found = {
        f"{mark}": {one, two, three},
        f"{mark} one": {one},
        f"{mark} STORMY": {two},
        f"{mark} lent": {one},
        f"{mark} oil": {one},
        f"{mark} 7": {two},
        str(one.id): {one},
        f"{mark} 2020-01-01": {one},
        f"{mark} %": {two},
    }
    for text, rows in found.items():
        page = look.get("/studio_pieces", query_string={"_q": text})
        assert set(keys_of(page)) >= {str(row.id) for row in rows}, text
        if text != mark and "7" not in text:
            assert len(keys_of(page)) == len(rows), text


def test_the_form_for_a_condition_leads_to_an_address_that_can_be_shared(look, pieces):
    mark = pieces[0]
    page = look.get(
        f"/studio_pieces?title__ends={mark}&_sort=-price&_after=x&_add=1"
        "&_column=mood&_operator=ne&_value=stormy"
    )
    assert page.status_code == 303
    expected = f"/studio_pieces?title__ends={mark}&mood__ne=stormy&_sort=-price"
    assert page.headers["Location"] == expected
    chips = words(look.get(expected))
    assert f"title ends with {mark}" in chips
    assert "mood is not stormy" in chips


def test_only_the_chosen_columns_are_shown_and_selected(look, pieces, caplog):
    with caplog.at_level(logging.DEBUG, "orm_core.database"):
        page = look.get("/studio_pieces?_columns=title&_columns=price")
    head = re.search(r"<thead>(.*?)</thead>", page.get_data(as_text=True), re.S)[1]
    assert re.findall(r">(\w+)</a>", head) == ["id", "title", "price"]
    statement = next(one for one in caplog.messages if "LEFT(" in one.upper() and "title" in one)
    assert "details" not in statement


# -- order and pages --------------------------------------------------------------------------------


def walk(look, path, rel="next"):
    """The keys on all pages from ``path`` on."""
    found = []
    while path:
        page = look.get(path)
        assert page.status_code == 200, words(page)
        found.append(keys_of(page))
        path = link(page, rel)
    return found


@pytest.fixture(scope="module")
def sixty(studio_url):
    """The mark of sixty pieces with many values alike and many NULLs."""
    initialize_db(studio_url)
    PiecesService.create_many(
        {
            "code": f"walk{number}",
            "details": {"mark": "sixty"},
            "title": None if number % 3 == 0 else f"t{number % 7}",
            "price": None if number % 4 == 0 else Decimal(number % 5),
            "mood": Mood.CALM if number % 2 else Mood.STORMY,
            "on_loan": number % 5 == 0,
            "made_on": None if number % 2 else date(2020, 1, 1 + number % 9),
        }
        for number in range(60)
    )
    db.close_all()
    return "sixty"


COLUMNS = ["id", "title", "price", "mood", "on_loan", "created_at", "made_on"]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("sign", ["", "-"])
def test_pages_in_any_order_show_each_row_once_there_and_back(look, sixty, studio_db, column, sign):
    path = f"/studio_pieces?details__contains={sixty}&_size=25&_sort={sign}{column}"
    pages = walk(look, path)
    assert [len(keys) for keys in pages] == [25, 25, 10]
    together = [key for keys in pages for key in keys]
    assert len(set(together)) == 60
    direction = "DESC" if sign else "ASC"
    rows = studio_db.execute_sql(
        f"SELECT id::text FROM studio_pieces WHERE details->>'mark' = %s "
        f"ORDER BY {column} {direction}, id {direction}",
        (sixty,),
    )
    assert together == [key for (key,) in rows]
    back = walk(look, _last(look, path), "prev")
    assert [key for keys in back[::-1] for key in keys] == together


def _last(look, path):
    while following := link(look.get(path), "next"):
        path = following
    return path


def test_a_page_goes_on_where_it_was_when_rows_come_meanwhile(look, studio_db):
    mark = f"late{next(_number)}"
    rows = [new_piece(title=mark) for _ in range(30)]
    first = look.get(f"/studio_pieces?title={mark}&_size=25")
    new_piece(title=mark)
    second = look.get(link(first, "next"))
    assert keys_of(first) + keys_of(second) == [str(row.id) for row in rows[::-1]]


def test_a_cursor_of_another_order_is_refused(look, pieces):
    for _ in range(30):
        new_piece(title="same")
    following = link(look.get("/studio_pieces?title=same&_size=25"), "next")
    page = look.get(f"{following}&_sort=price")
    assert page.status_code == 400
    assert "another order" in words(page)


# -- counts ---------------------------------------------------------------------------------------


def test_a_small_table_is_counted_and_a_large_one_estimated(look, studio_db):
    tables = Tables(look.studio.registry)
    view = filters.read(tables["users"], [])
    large = explorer.Size(5_000_000, 100_000, 0)
    small = explorer.Size(10, 1, 0)
    new_user()
    total = User.select().count()
    assert explorer.count_rows(look.studio.reader, view, small) == explorer.Count(total, True)
    assert not explorer.count_rows(look.studio.reader, view, large).exact
    asked = filters.read(tables["users"], [("_count", "exact")])
    assert explorer.count_rows(look.studio.reader, asked, large) == explorer.Count(total, True)


# -- deleted rows -----------------------------------------------------------------------------------


def test_deleted_rows_are_left_out_marked_or_alone(look):
    live, gone = new_user(), new_user()
    UsersService.soft_delete(gone.id)
    both = f"id__in={live.id},{gone.id}"
    assert keys_of(look.get(f"/users?{both}")) == [str(live.id)]
    assert keys_of(look.get(f"/users?{both}&_deleted=only")) == [str(gone.id)]
    page = look.get(f"/users?{both}&_deleted=1")
    assert len(keys_of(page)) == 2
    assert page.get_data(as_text=True).count('<tr class="deleted"') == 1
    assert "deleted" in words(look.get(f"/users/{gone.id}"))


def test_a_table_without_soft_delete_offers_no_choice_of_deleted_rows(look):
    Stamp.create(text="penny black")
    page = look.get("/studio_stamps")
    assert page.status_code == 200
    assert "Deleted" not in words(page)
    assert look.get(f"/studio_stamps/{Stamp.select().get().id}").status_code == 200


# -- one row ----------------------------------------------------------------------------------------


def test_a_row_leads_to_what_it_refers_to_and_to_what_refers_to_it(look, pieces):
    _, one, _, _ = pieces
    page = look.get(f"/studio_pieces/{one.id}").get_data(as_text=True)
    assert f'href="/studio_artists/{one.artist_id}"' in page
    assert f">{Artist.get_by_id(one.artist_id).name}<" in page
    parent = look.get(f"/studio_artists/{one.artist_id}")
    assert "studio_pieces by artist_id 1" in words(parent)
    assert f'href="/studio_pieces?artist_id={one.artist_id}"' in parent.get_data(as_text=True)


def test_a_row_shows_json_in_lines_and_times_of_here_and_in_utc(look, pieces, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        _, one, _, _ = pieces
        page = look.get(f"/studio_pieces/{one.id}")
        assert "{\n  &#34;lent&#34;: {\n    &#34;to&#34;: &#34;x&#34;" in page.get_data(
            as_text=True
        )
        assert "+05:45" in words(page)
        assert f"{one.created_at:%Y-%m-%d %H:%M:%S} UTC" in words(page)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "key", ["0190a9a3-0000-7000-8000-000000000000", "x", "-/-", "..%2f..%2fetc"]
)
def test_a_row_that_is_not_there_is_told_as_such(look, key):
    page = look.get(f"/users/{key}")
    assert page.status_code in (400, 404)
    assert "root:" not in words(page)


def test_a_table_without_a_key_of_one_column_says_so(studio_db):
    class Pair(BaseModel):
        id = None
        left = IntegerField()
        right = IntegerField()

        class Meta:
            table_name = "studio_pairs"
            primary_key = CompositeKey("left", "right")

    studio_db.create_tables([Pair])
    registry = Registry()
    registry.register(Domain("pairs", models=(Pair,)))
    studio = Studio(registry, studio_db, Guard("127.0.0.1", PORT), ROOT / "migrations")
    found = Browser(studio)
    for path in ("/studio_pairs", "/studio_pairs/1"):
        page = found.get(path)
        assert page.status_code == 400
        assert "no primary key of one column" in words(page)
    for path in ("/", "/studio_pairs/-/structure", "/-/diagram"):
        assert found.get(path).status_code == 200, path
    studio.close()


# -- structure --------------------------------------------------------------------------------------


def test_the_structure_of_a_table_is_told_with_its_ddl(look):
    page = words(look.get("/studio_pieces/-/structure"))
    for text in (
        "numeric(8,2)",
        "UNIQUE btree (code)",
        "foreign key",
        "studio_artists by artist_id",
        "upper(title) computed",
        "CREATE TABLE public.studio_pieces",
    ):
        assert text in page


def test_the_ddl_makes_the_table(look, studio_db, orm_core_server):
    from service_helpers import empty_databases

    from orm_core.studio import structure

    tables = Tables(look.studio.registry)
    statements = [
        statement
        for name in ("studio_artists", "studio_pieces")
        for statement in structure.read(look.studio.reader, tables[name]).ddl
    ]
    with empty_databases(orm_core_server) as make:
        other = initialize_db(make())
        other.execute_sql("CREATE TYPE studio_mood AS ENUM ('calm', 'stormy')")
        for statement in statements:
            other.execute_sql(statement)
        assert other.table_exists("studio_pieces")
        other.close_all()


# -- export -----------------------------------------------------------------------------------------


@pytest.fixture
def odd(studio_db):
    """Rows whose values are hard to write down."""
    mark = f"odd{next(_number)}"
    texts = [
        "",
        'say "hi", you',
        "two\r\nlines",
        " blank ",
        "O'Neil\\n",
        "naïve 🎈",
        "=1+1",
        "NULL",
    ]
    rows = [new_piece(title=text, tags=[text], details={"mark": mark, "t": text}) for text in texts]
    rows.append(new_piece(title=None, price=Decimal("0.10"), details={"mark": mark}))
    return mark, rows


def test_csv_keeps_every_value_and_tells_null_from_empty_text(look, odd):
    mark, rows = odd
    answer = look.get(f"/studio_pieces/-/export.csv?details__contains={mark}&_sort=id")
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="studio_pieces.csv"'
    text = answer.get_data(as_text=True)
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [one["title"] for one in read] == [row.title or "" for row in rows]
    assert ',"",' in text.splitlines()[1]
    assert read[-1]["price"] == "0.10"


def test_json_keeps_types(look, odd):
    mark, rows = odd
    answer = look.get(f"/studio_pieces/-/export.json?details__contains={mark}&_sort=id")
    read = json.loads(answer.get_data(as_text=True))
    assert [one["title"] for one in read] == [row.title for row in rows]
    assert read[1]["tags"] == ['say "hi", you']
    assert read[1]["details"]["t"] == 'say "hi", you'
    assert read[0]["on_loan"] is False
    empty = look.get("/studio_pieces/-/export.json?title=nothing+like+it")
    assert json.loads(empty.get_data()) == []


def test_sql_inserts_make_the_same_rows_again(look, odd, studio_db):
    mark, rows = odd
    path = f"/studio_pieces/-/export.sql?details__contains={mark}&_sort=id"
    columns = "&_columns=" + ",".join(
        name for name in ("id", "code", "title", "tags", "details", "price", "created_at", "mood")
    )
    text = look.get(path + columns).get_data(as_text=True)
    studio_db.execute_sql("DELETE FROM studio_pieces WHERE details->>'mark' = %s", (mark,))
    connection = studio_db.connection()
    with connection.cursor() as cursor:
        cursor.execute(text)
    again = [PiecesService.get(row.id) for row in rows]
    assert [(one.title, one.tags, one.details, one.created_at) for one in again] == [
        (one.title, one.tags, one.details, one.created_at) for one in rows
    ]
    studio_db.close()


def test_an_export_holds_the_view_in_its_order(look, pieces):
    mark, one, two, three = pieces
    path = f"/studio_pieces/-/export.csv?title__ends={mark}&_sort=-title&_columns=code"
    assert look.get(path).get_data(as_text=True).split() == ["code", two.code, three.code, one.code]


def test_an_export_of_another_format_is_refused(look):
    assert look.get("/users/-/export.xlsx").status_code == 400


def test_a_long_export_is_read_in_batches(look, studio_db, monkeypatch):
    from orm_core.studio import export

    monkeypatch.setattr(export, "BATCH", 7)
    mark = f"long{next(_number)}"
    for _ in range(20):
        new_piece(title=mark)
    answer = look.get(f"/studio_pieces/-/export.csv?title={mark}&_columns=title")
    assert answer.get_data(as_text=True).split() == ["title", *[mark] * 20]


# -- secrets ----------------------------------------------------------------------------------------


def stored(session):
    """All that the database holds of a session's secrets, sealed as it is."""
    row = db.execute_sql(
        "SELECT provider_access_token, provider_access_token_iv, provider_access_token_tag, "
        "provider_refresh_token FROM sessions WHERE id = %s",
        (str(session.id),),
    ).fetchone()
    return [part for part in row if part]


def test_no_page_export_or_statement_reads_a_secret(look, studio_db, caplog):
    session = new_session(provider_refresh_token=Secret("rt-of-ada"))
    parts = [*stored(session), TOKEN, "rt-of-ada"]
    key = session.id
    paths = [
        "/",
        "/sessions",
        "/sessions?_columns=provider_access_token,provider_refresh_token",
        f"/sessions?_q={parts[0][:20]}",
        f"/sessions/{key}",
        "/sessions/-/structure",
        "/sessions/-/export.csv",
        "/sessions/-/export.json",
        "/sessions/-/export.sql",
        "/-/dashboard",
        "/-/diagram",
        "/-/migrations",
    ]
    with caplog.at_level(logging.DEBUG):
        for path in paths:
            page = look.get(path)
            assert page.status_code == 200, path
            text = page.get_data(as_text=True)
            assert not [part for part in parts if part in text and "_q=" not in path], path
    read = re.compile(r'"provider_(?:access|refresh)_token(?:_iv|_tag)?"(?! IS (?:NOT )?NULL)')
    for statement in caplog.messages:
        if "split_part" not in statement.lower():
            assert not read.search(statement), statement
    assert "secret" in words(look.get("/sessions"))


@pytest.mark.parametrize(
    "condition",
    [
        "provider_access_token=x",
        "provider_access_token__contains=x",
        "provider_access_token__null=1",
        "provider_access_token_iv__starts=a",
        "provider_access_token_tag=x",
        "_sort=provider_access_token",
        "_sort=provider_access_token_iv",
        "_columns=provider_access_token_tag",
    ],
)
def test_rows_are_neither_filtered_nor_sorted_by_a_secret(look, condition):
    page = look.get(f"/sessions?{condition}")
    assert page.status_code == 400
    assert "secret" in words(page) or "no field" in words(page)
    assert look.get(f"/sessions/-/export.csv?{condition}").status_code == 400


def test_a_secret_that_is_not_there_is_null(look):
    session = new_session()
    page = look.get(f"/sessions/{session.id}")
    assert "provider_refresh_token secret NULL" in words(page)
    assert "provider_access_token secret secret There is a value" in words(page)
    assert SessionService.get(session.id).provider_access_token.reveal() == TOKEN


# -- limits -----------------------------------------------------------------------------------------


def test_the_studios_own_connections_can_only_read(look):
    from orm_core import QueryError

    with pytest.raises(QueryError, match="read-only"):
        look.studio.reader.execute_sql("DELETE FROM users")


def test_a_page_that_takes_too_long_is_ended_and_says_what_helps(look, monkeypatch):
    reader = reader_of(db, 0.05)
    slow = lambda *_: reader.execute_sql("SELECT pg_sleep(20)")  # noqa: E731
    monkeypatch.setattr(explorer, "read_page", slow)
    page = look.get("/users")
    reader.close_all()
    assert page.status_code == 504
    assert "Narrow the rows down" in words(page)


def test_a_database_that_is_gone_is_told_on_every_page(look):
    look.studio.reader.init("nothing_here", host="127.0.0.1", port=1)
    page = look.get("/users")
    assert page.status_code == 503
    assert "Connection refused" in words(page)
