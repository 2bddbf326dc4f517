"""Soft delete: every road to rows sees the live ones, unless it is told otherwise.

What a query should see is computed in Python from the rows themselves, and compared.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import peewee
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import JOIN, PREFETCH_TYPE, SQL, Load, ManyToManyField, fn, prefetch

from domains.orders import Order
from domains.users import Session, SessionProvider, User
from orm_core import (
    BaseModel,
    DuplicateKey,
    ForeignKeyField,
    ForeignKeyViolation,
    IntegerField,
    InvalidValue,
    KeyRing,
    NotFound,
    Secret,
    TextField,
    db,
    use_key_ring,
    utcnow,
)

GONE = datetime(2024, 1, 1, tzinfo=UTC)


class Author(BaseModel):
    name = TextField()
    n = IntegerField(default=0)

    class Meta:
        table_name = "soft_authors"


class Book(BaseModel):
    author = ForeignKeyField(Author, null=True, backref="books")
    name = TextField()
    n = IntegerField(default=0)

    class Meta:
        table_name = "soft_books"


class Chapter(BaseModel):
    book = ForeignKeyField(Book, null=True, backref="chapters")
    name = TextField()
    n = IntegerField(default=0)

    class Meta:
        table_name = "soft_chapters"


class Place(BaseModel):
    """A tree, without a cascade."""

    parent = ForeignKeyField("self", null=True, backref="children")
    name = TextField()
    n = IntegerField(default=0)

    class Meta:
        table_name = "soft_places"


class Firm(BaseModel):
    name = TextField(unique="live")

    class Meta:
        table_name = "soft_firms"


class Team(BaseModel):
    firm = ForeignKeyField(Firm, backref="teams", on_soft_delete="cascade")
    name = TextField()

    class Meta:
        table_name = "soft_teams"


class Member(BaseModel):
    team = ForeignKeyField(Team, backref="members", on_soft_delete="cascade")
    deputy = ForeignKeyField(Team, null=True, backref="deputies")
    name = TextField(unique="live")

    class Meta:
        table_name = "soft_members"


class Invoice(BaseModel):
    """Refers to a firm, and stays when that goes."""

    firm = ForeignKeyField(Firm, backref="invoices")
    name = TextField()

    class Meta:
        table_name = "soft_invoices"


class Folder(BaseModel):
    """A tree that goes as a whole."""

    parent = ForeignKeyField("self", null=True, backref="children", on_soft_delete="cascade")
    name = TextField()

    class Meta:
        table_name = "soft_folders"


class Label(BaseModel):
    name = TextField()

    class Meta:
        table_name = "soft_labels"


class Photo(BaseModel):
    name = TextField()
    labels = ManyToManyField(Label, backref="photos")

    class Meta:
        table_name = "soft_photos"


class _Undo(Exception):
    pass


@contextmanager
def undone() -> Iterator[None]:
    """A block whose changes are rolled back."""
    try:
        with db.atomic():
            yield
            raise _Undo
    except _Undo:
        pass


@pytest.fixture
def shelf(rollback_db):
    db.create_tables([Author, Book, Chapter, Place])
    return rollback_db


@pytest.fixture
def firms(rollback_db):
    db.create_tables([Firm, Team, Member, Invoice])
    return rollback_db


@pytest.fixture
def people(rollback_db) -> Iterator[Any]:
    use_key_ring(KeyRing.parse(KeyRing.generate()))
    yield rollback_db
    use_key_ring(None)


def new_user(name: str) -> User:
    return User.create(email=f"{name}@b.c", first_name=name, provider_account_id=name)


def new_session(user: User, scope: str = "") -> Session:
    return Session.create(
        user=user,
        provider=SessionProvider.GOOGLE,
        provider_access_token=Secret("token"),
        provider_account_id="g",
        provider_scope=scope,
        expires_at=utcnow() + timedelta(hours=1),
    )


def fails(error: type[Exception], action: Callable[[], Any], match: str | None = None) -> None:
    with pytest.raises(error, match=match), db.atomic():
        action()


# -- the flags ------------------------------------------------------------------------------

Flags = Callable[[Any], Any]
SEES: dict[str, tuple[Flags, str]] = {
    "default": (lambda query: query, "live"),
    "with_deleted": (lambda query: query.with_deleted(), "all"),
    "only_deleted": (lambda query: query.only_deleted(), "deleted"),
    "with, then only": (lambda query: query.with_deleted().only_deleted(), "deleted"),
    "only, then with": (lambda query: query.only_deleted().with_deleted(), "all"),
    "with twice": (lambda query: query.with_deleted().with_deleted(), "all"),
}


def seen(rows: list[Any], visibility: str) -> list[Any]:
    """The rows that a query of this visibility sees."""
    if visibility == "all":
        return list(rows)
    return [row for row in rows if (row.deleted_at is None) is (visibility == "live")]


def of_joined(visibility: str) -> str:
    """What is seen of joined models: all, when deleted rows of the first are asked for."""
    return "live" if visibility == "live" else "all"


@pytest.fixture
def authors(shelf) -> list[Author]:
    """Live and deleted authors, with live, deleted and no books."""
    rows = []
    for number, (gone, book_gone) in enumerate(product([None, GONE], [None, GONE, "no book"])):
        author = Author.create(name=f"a{number}", n=number % 2, deleted_at=gone)
        if book_gone != "no book":
            Book.create(author=author, name=f"b{number}", n=number % 2, deleted_at=book_gone)
            Book.create(author=author, name=f"B{number}", n=number % 2, deleted_at=GONE)
        rows.append(author)
    return rows


def names(rows: Any) -> list[str]:
    return sorted(row.name for row in rows)


def first_n(see: Flags) -> list[str]:
    query = see(Author.select()).order_by(Author.name)
    return [query.offset(number).first().name for number in range(len(query))]


def by_get(see: Flags) -> list[str]:
    found = []
    for number in range(7):
        query = see(Author.select().where(Author.name == f"a{number}"))
        try:
            found.append(query.get().name)
        except NotFound:
            assert query.get_or_none() is None
            assert not query.exists()
            assert query.count() == 0
        else:
            assert query.get_or_none() is not None
            assert query.exists()
            assert query.count() == 1
    return found


def by_index(see: Flags) -> list[str]:
    query = see(Author.select())
    return names(query[number] for number in range(len(query)))


def from_subquery(see: Flags) -> list[str]:
    query = see(Author.select(Author.name)).alias("q")
    return [name for (name,) in peewee.Select([query], [query.c.name]).bind(db).tuples()]


def from_cte(see: Flags) -> list[str]:
    cte = see(Author.select(Author.name)).cte("c")
    query = cte.select_from(cte.c.name).with_cte(cte).bind(db)
    return [name for (name,) in query.tuples()]


UA = Author.alias()

#: queries on authors, as the names that they answer; the flag is set where ``see`` stands
READS: dict[str, Callable[[Flags], Any]] = {
    "select": lambda see: names(see(Author.select())),
    "columns": lambda see: names(see(Author.select(Author.name))),
    "other columns": lambda see: names(see(Author.select(Author.n)).select(Author.name)),
    "tuples": lambda see: [name for (name,) in see(Author.select(Author.name)).tuples()],
    "dicts": lambda see: [row["name"] for row in see(Author.select()).dicts()],
    "namedtuples": lambda see: names(see(Author.select()).namedtuples()),
    "objects": lambda see: names(see(Author.select()).objects()),
    "iterator": lambda see: names(see(Author.select()).iterator()),
    "scalars": lambda see: list(see(Author.select(Author.name)).scalars()),
    "slice": lambda see: names(see(Author.select())[:100]),
    "by index": by_index,
    "first": first_n,
    "get, get_or_none, exists and count": by_get,
    "where": lambda see: names(see(Author.select()).where(Author.n >= 0)),
    "where after the flag": lambda see: names(see(Author.select()).where(Author.n >= 0)),
    "orwhere": lambda see: names(see(Author.select()).where(Author.n == 0).orwhere(Author.n == 1)),
    "or": lambda see: names(see(Author.select().where((Author.n == 0) | (Author.n == 1)))),
    "or true": lambda see: names(see(Author.select()).where(Author.n < 0).orwhere(SQL("true"))),
    "not": lambda see: names(see(Author.select()).where(~(Author.n < 0))),
    "filter": lambda see: names(see(Author.filter(n__gte=0))),
    "filter a query": lambda see: names(see(Author.select()).filter(n__in=[0, 1])),
    "order and limit": lambda see: names(see(Author.select()).order_by(Author.name).limit(50)),
    "paginate": lambda see: names(see(Author.select()).order_by(Author.name).paginate(1, 50)),
    "distinct": lambda see: names(see(Author.select(Author.name).distinct())),
    "alias": lambda see: names(see(UA.select())),
    "columns of an alias": lambda see: names(see(UA.select(UA.name).where(UA.n >= 0))),
    "alias with orwhere": lambda see: names(see(UA.select()).where(UA.n == 0).orwhere(UA.n == 1)),
    "named alias": lambda see: names(see(Author.alias("x").select())),
    "for update": lambda see: names(see(Author.select()).for_update()),
    "for update of": lambda see: names(see(Author.select()).for_update(of=Author)),
    "clone": lambda see: names(see(Author.select()).clone()),
    "subquery of ids": lambda see: names(
        Author.with_deleted().where(Author.id.in_(see(UA.select(UA.id))))
    ),
    "subquery of the model": lambda see: names(
        UA.select().with_deleted().where(UA.id.in_(see(Author.select())))
    ),
    "not in": lambda see: names(
        set(Author.with_deleted())
        - set(Author.with_deleted().where(Author.id.not_in(see(UA.select(UA.id)))))
    ),
    "exists": lambda see: names(
        Author.with_deleted().where(fn.EXISTS(see(UA.select().where(UA.id == Author.id))))
    ),
    "subquery in from": from_subquery,
    "select_from": lambda see: names(
        (query := see(Author.select(Author.name))).select_from(query.c.name)
    ),
    "CTE": from_cte,
    "join with a CTE": lambda see: names(
        UA.select()
        .with_deleted()
        .join(cte := see(Author.select(Author.id)).cte("c"), on=(cte.c.id == UA.id))
        .with_cte(cte)
    ),
    "join with a subquery": lambda see: names(
        UA.select()
        .with_deleted()
        .join(query := see(Author.select(Author.id)), on=(query.c.id == UA.id))
    ),
    "union": lambda see: names(see(Author.select()) | see(Author.select())),
    "union all": lambda see: names(
        see(Author.select().where(Author.n == 0)) + see(Author.select().where(Author.n == 1))
    ),
    "union of aliases": lambda see: names(see(UA.select()) | see(Author.select())),
    "intersect": lambda see: names(Author.with_deleted() & see(Author.select())),
    "except": lambda see: names(
        Author.with_deleted() - (Author.with_deleted() - see(Author.select()))
    ),
    "group by": lambda see: [
        name
        for name, count in see(Author.select(Author.name, fn.COUNT(Author.id)))
        .group_by(Author.name)
        .tuples()
        if count == 1
    ],
    "having": lambda see: names(
        see(Author.select(Author.name)).group_by(Author.name).having(fn.COUNT(Author.id) == 1)
    ),
    "aggregate": lambda see: list(see(Author.select(fn.ARRAY_AGG(Author.name))).scalar() or []),
    "window": lambda see: [
        name
        for name, _ in see(
            Author.select(Author.name, fn.COUNT(Author.id).over(partition_by=[Author.n]))
        ).tuples()
    ],
    "raw condition": lambda see: names(see(Author.select()).where(SQL("1 = 1 OR 1 = 1"))),
    "prefetch": lambda see: names(prefetch(see(Author.select()), Book.select())),
    "prefetch method": lambda see: names(see(Author.select()).prefetch(Book)),
    "with_related": lambda see: names(see(Author.select()).with_related(Author.books)),
    "from": lambda see: names(see(Author.select().from_(Author))),
}


@pytest.mark.parametrize("read", READS)
def test_every_read_sees_the_rows_it_should(authors, read):
    found = {flag: sorted(READS[read](see)) for flag, (see, _) in SEES.items()}
    assert found == {flag: names(seen(authors, visible)) for flag, (_, visible) in SEES.items()}


COUNTS: dict[str, Callable[[Flags], int]] = {
    "count": lambda see: see(Author.select()).count(),
    "count of columns": lambda see: see(Author.select(Author.n)).count(),
    "count of distinct": lambda see: see(Author.select(Author.name).distinct()).count(),
    "count after orwhere": lambda see: (
        see(Author.select()).where(Author.n == 0).orwhere(Author.n == 1).count()
    ),
    "count with a limit": lambda see: see(Author.select()).limit(100).count(),
    "len": lambda see: len(see(Author.select())),
    "aggregate": lambda see: see(Author.select(fn.COUNT(Author.id))).scalar(),
    "aggregate of all": lambda see: see(Author.select(fn.COUNT(SQL("*")))).scalar(),
    "alias": lambda see: see(UA.select()).count(),
    "union": lambda see: (see(Author.select()) | see(Author.select())).count(),
    "scalar subquery": lambda see: (
        UA.select(see(Author.select(fn.COUNT(Author.id))).alias("many"))
        .with_deleted()
        .limit(1)
        .tuples()
        .get()[0]
    ),
    "filter of an aggregate": lambda see: see(
        Author.select(fn.COUNT(Author.id).filter(Author.n >= 0))
    ).scalar(),
}


@pytest.mark.parametrize("count", COUNTS)
def test_every_count_counts_the_rows_it_should(authors, count):
    found = {flag: COUNTS[count](see) for flag, (see, _) in SEES.items()}
    assert found == {flag: len(seen(authors, visible)) for flag, (_, visible) in SEES.items()}


def test_a_model_itself_is_its_live_rows(authors):
    live = seen(authors, "live")
    assert len(Author) == len(live)
    assert names(Author) == names(live)
    assert [author.id in Author for author in authors] == [author in live for author in authors]
    assert names(Author.with_deleted()) == names(authors)
    assert names(Author.only_deleted()) == names(seen(authors, "deleted"))
    for author in authors:
        assert Author.get_or_none(Author.id == author.id) == (author if author in live else None)
        assert Author.get_or_none(name=author.name) == (author if author in live else None)


def test_an_alias_has_the_same_roads_as_its_model(authors):
    alias = Author.alias()
    everyone = alias.with_deleted().where(alias.n >= 0)
    gone = alias.only_deleted().where(alias.n >= 0)
    assert names(everyone) == names(authors)
    assert names(gone) == names(seen(authors, "deleted"))


def test_a_query_is_not_changed_by_its_flags(authors):
    query = Author.select()
    query.with_deleted()
    query.only_deleted()
    assert names(query) == names(seen(authors, "live"))


def test_deleted_at_can_be_asked_for_itself(authors):
    gone = Author.deleted_at.is_null(False)
    assert list(Author.select().where(gone)) == []
    assert names(Author.with_deleted().where(gone)) == names(seen(authors, "deleted"))
    assert [author.is_deleted for author in Author.only_deleted()] == [True] * 3


# -- what belongs to a row ------------------------------------------------------------------

BOOKS: dict[str, Callable[[Author], Any]] = {
    "back-reference": lambda author: author.books,
    "back-reference with where": lambda author: author.books.where(Book.n >= 0),
    "back-reference with orwhere": lambda author: author.books.where(Book.author == author).orwhere(
        Book.author == author
    ),
    "select by row": lambda author: Book.select().where(Book.author == author),
    "select by id": lambda author: Book.select().where(Book.author_id == author.id),
    "filter": lambda author: Book.filter(author=author),
}


@pytest.mark.parametrize("flag", SEES)
@pytest.mark.parametrize("road", BOOKS)
def test_the_books_of_an_author_are_seen_by_the_flag_of_their_query(authors, road, flag):
    see, visibility = SEES[flag]
    for author in authors:
        books = [book for book in Book.with_deleted() if book.author_id == author.id]
        assert names(see(BOOKS[road](author))) == names(seen(books, visibility))
        assert see(BOOKS[road](author)).count() == len(seen(books, visibility))


STRATEGIES = [PREFETCH_TYPE.WHERE, PREFETCH_TYPE.JOIN, PREFETCH_TYPE.MATERIALIZE]

#: how authors get their books loaded, given the query for each
LOADS: dict[str, Callable[[Any, Any], Any]] = {
    "prefetch": lambda authors, books: prefetch(authors, books),
    "prefetch by join": lambda authors, books: prefetch(
        authors, books, prefetch_type=PREFETCH_TYPE.JOIN
    ),
    **{
        f"load by {strategy}": (
            lambda authors, books, strategy=strategy: authors.with_related(
                Load(Author.books, books, strategy=strategy)
            )
        )
        for strategy in STRATEGIES
    },
    **{
        f"load some by {strategy}": (
            lambda authors, books, strategy=strategy: authors.with_related(
                Load(Author.books, books.order_by(Book.name), strategy=strategy, per_parent=9)
            )
        )
        for strategy in STRATEGIES
    },
}


@pytest.mark.parametrize("load", LOADS)
def test_eager_loads_see_by_the_flag_of_each_query(authors, load):
    three = [SEES[flag] for flag in ("default", "with_deleted", "only_deleted")]
    for author_flag, book_flag in product(three, repeat=2):
        check_load(authors, LOADS[load], author_flag, book_flag)


def check_load(authors: list[Author], load: Any, author_flag: Any, book_flag: Any) -> None:
    (see, visibility), (see_book, book_visibility) = author_flag, book_flag
    found = {
        author.name: names(author.books)
        for author in load(see(Author.select()), see_book(Book.select()))
    }
    books = list(Book.with_deleted())
    assert found == {
        author.name: names(
            seen([book for book in books if book.author_id == author.id], book_visibility)
        )
        for author in seen(authors, visibility)
    }


def test_per_parent_counts_live_rows_only(shelf):
    author = Author.create(name="a")
    for number in range(6):
        Book.create(author=author, name=f"b{number}", deleted_at=GONE if number < 3 else None)
    load = Load(Author.books, Book.select().order_by(Book.name), per_parent=2)
    (loaded,) = Author.select().with_related(load)
    assert names(loaded.books) == ["b3", "b4"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_eager_loads_of_three_levels_see_live_rows(shelf, strategy):
    author = Author.create(name="a")
    for book_gone, chapter_gone in product([None, GONE], repeat=2):
        name = f"{bool(book_gone)}{bool(chapter_gone)}"
        book = Book.create(author=author, name=name, deleted_at=book_gone)
        Chapter.create(book=book, name=name, deleted_at=chapter_gone)
    load = Load(Author.books, strategy=strategy).then(Load(Book.chapters, strategy=strategy))
    (loaded,) = Author.select().with_related(load)
    assert {book.name: names(book.chapters) for book in loaded.books} == {
        "FalseFalse": ["FalseFalse"],
        "FalseTrue": [],
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_parent_that_was_deleted_is_loaded_when_it_is_asked_for(authors, strategy):
    books = list(
        Book.select().with_related(Load(Book.author, Author.with_deleted(), strategy=strategy))
    )
    assert names(books) == names(seen(list(Book.with_deleted()), "live"))
    sent = count_statements(lambda: [book.author.name for book in books])
    assert sent == 0


def count_statements(action: Callable[[], Any]) -> int:
    sent: list[str] = []

    def note(event: Any) -> None:
        sent.append(event.sql)

    db.query_hooks.append(note)
    try:
        action()
    finally:
        db.query_hooks.remove(note)
    return len(sent)


# -- a foreign key reaches its parent -------------------------------------------------------


def test_a_foreign_key_reaches_its_deleted_parent(shelf):
    author = Author.create(name="a")
    Book.create(author=author, name="b")
    author.delete_instance()
    assert Book.get().author == author
    assert Book.get().author.is_deleted


def test_a_foreign_key_to_a_row_that_is_gone_for_good_cannot_be():
    assert Book.author.rel_model is Author


def test_an_empty_foreign_key_is_none(shelf):
    assert Book.create(name="b").author is None
    assert Book.get().author is None


def test_a_foreign_key_reaches_a_parent_of_another_kind_of_model(rollback_db):
    class Plain(peewee.Model):
        name = TextField()

        class Meta:
            database = db
            table_name = "soft_plain"

    class Owned(BaseModel):
        plain = ForeignKeyField(Plain, backref="owned")

        class Meta:
            table_name = "soft_owned"

    db.create_tables([Plain, Owned])
    plain = Plain.create(name="p")
    Owned.create(plain=plain)
    gone = Owned.create(plain=plain)
    gone.delete_instance()
    assert Owned.get().plain == plain
    assert plain.owned.count() == 1
    assert Plain.select().count() == 1


# -- joins, against a model of the rows -----------------------------------------------------

KINDS = {
    "inner": JOIN.INNER,
    "left": JOIN.LEFT_OUTER,
    "right": JOIN.RIGHT_OUTER,
    "full": JOIN.FULL_OUTER,
    "cross": JOIN.CROSS,
}
Row = tuple[Any, ...]


def joined(
    kind: str, left: list[Row], right: list[Any], on: Callable[[Row, Any], bool]
) -> list[Row]:
    """The rows of a join, None for the side that has none; what PostgreSQL's manual says."""
    if kind == "cross":
        return [(*one, other) for one in left for other in right]
    pairs = [(one, other) for one in left for other in right if on(one, other)]
    rows = [(*one, other) for one, other in pairs]
    if kind in {"left", "full"}:
        rows += [(*one, None) for one in left if not any(one is match for match, _ in pairs)]
    if kind in {"right", "full"}:
        width = WIDTH.get()
        rows += [
            (*[None] * width, other)
            for other in right
            if not any(other is match for _, match in pairs)
        ]
    return rows


class _Width:
    """How many sources the left side of the join that is computed has."""

    value = 1

    def get(self) -> int:
        return self.value


WIDTH = _Width()
bits = st.booleans()
parents = st.none() | st.integers(0, 3)
flags = st.sampled_from(["default", "with_deleted", "only_deleted"])
kinds = st.sampled_from(sorted(KINDS))
table = st.lists(st.tuples(parents, bits, st.integers(0, 1)), max_size=4)


def fill(model: Any, key: Any, above: list[Any], rows: list[tuple[Any, bool, int]]) -> list[Any]:
    made = []
    for parent, gone, n in rows:
        values = {"name": "", "n": n, "deleted_at": GONE if gone else None}
        if key is not None:
            known = parent is not None and parent < len(above)
            values[key.name] = above[parent] if known else None
        made.append(model(**values))
    model.bulk_create(made)
    return made


def check_join(sources: list[Any], tables: list[list[Any]], case: Any) -> None:
    """Compare a chain of joins, each on the foreign key between neighbours, with the oracle."""
    flag, chosen, conditions, up = case
    see, visibility = SEES[flag]
    query = sources[0].select(*(source.id for source in sources[: len(chosen) + 1]))
    expected: list[Row] = [(row,) for row in seen(tables[0], visibility)]
    for place, kind in enumerate(chosen, start=1):
        before, source = sources[place - 1], sources[place]
        child, parent = (before, source) if up else (source, before)
        key = foreign_key(child)
        if kind == "cross":
            query = query.join_from(before, source, JOIN.CROSS)
        else:
            query = query.join_from(before, source, KINDS[kind], on=(key == parent.id))

        def on(one: Row, other: Any, place: int = place, key: Any = key) -> bool:
            left = one[place - 1]
            if left is None:
                return False
            low, high = (left, other) if up else (other, left)
            return low.__data__[key.name] == high.id

        WIDTH.value = place
        expected = joined(kind, expected, seen(tables[place], of_joined(visibility)), on)
    if conditions:
        first, *rest = conditions
        query = query.where(sources[0].n == first)
        for n in rest:
            query = query.orwhere(sources[0].n == n)
        expected = [row for row in expected if row[0] is not None and row[0].n in conditions]
    found = Counter(tuple(map(str, row)) for row in see(query).tuples())
    assert found == Counter(tuple(str(one and one.id) for one in row) for row in expected)
    assert see(query).count() == len(expected)
    assert see(query).exists() is bool(expected)


def foreign_key(source: Any) -> Any:
    model = getattr(source, "model", source)
    (key,) = model._meta.refs
    return getattr(source, key.name)


conditions = st.lists(st.integers(0, 1), max_size=2)


def cases(joins: int) -> st.SearchStrategy[Any]:
    """Flag, kinds of join, values of n that are asked for, and the way along the keys."""
    return st.tuples(flags, st.lists(kinds, min_size=1, max_size=joins), conditions, bits)


quick = settings(
    max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


def test_joins_of_models_see_the_rows_they_should(shelf):
    @quick
    @given(table, table, table, cases(2), bits)
    def check(authors: Any, books: Any, chapters: Any, case: Any, aliased: bool) -> None:
        with undone():
            written = fill(Author, None, [], authors)
            made = fill(Book, Book.author, written, books)
            tables = [written, made, fill(Chapter, Chapter.book, made, chapters)]
            sources = [Author, Book, Chapter]
            if aliased:
                sources = [source.alias() for source in sources]
            if case[3]:
                sources, tables = sources[::-1], tables[::-1]
            check_join(sources, tables, case)

    check()


def all_below(above: int) -> list[tuple[int | None, bool, int]]:
    """A live and a deleted row for each row above, and for none."""
    return [(row, gone, 0) for row in (*range(above), None) for gone in (False, True)]


@pytest.mark.parametrize(("first", "second"), list(product(sorted(KINDS), repeat=2)))
def test_each_pair_of_joins_sees_the_rows_it_should(shelf, first, second):
    authors = fill(Author, None, [], [(None, False, 0), (None, True, 0)])
    books = fill(Book, Book.author, authors, all_below(2))
    chapters = fill(Chapter, Chapter.book, books, all_below(6))
    sources, tables = [Author, Book, Chapter], [authors, books, chapters]
    for flag in ("default", "with_deleted", "only_deleted"):
        check_join(sources, tables, (flag, [first, second], [], False))
        check_join(sources[::-1], tables[::-1], (flag, [first, second], [], True))


def test_joins_of_a_model_with_itself_see_the_rows_they_should(shelf):
    @quick
    @given(table, cases(3), bits)
    def check(places: Any, case: Any, named: bool) -> None:
        with undone():
            made: list[Any] = []
            for row in places:
                made += fill(Place, Place.parent, made, [row])
            aliases = [Place.alias(f"p{n}" if named else None) for n in range(3)]
            check_join([Place, *aliases], [made] * 4, case)

    check()


def test_a_flag_before_the_joins_means_the_same(authors):
    for see, _ in SEES.values():
        before = see(Author.select(Author.id, Book.id)).join(Book, JOIN.LEFT_OUTER)
        after = see(Author.select(Author.id, Book.id).join(Book, JOIN.LEFT_OUTER))
        assert before.sql() == after.sql()
        assert Counter(before.tuples()) == Counter(after.tuples())


JOINS: dict[str, Callable[[], Any]] = {
    "join": lambda: Author.select(Author, Book).join(Book),
    "on": lambda: Author.select(Author, Book).join(Book, on=(Book.author == Author.id)),
    "join_from": lambda: Author.select(Author, Book).join_from(Author, Book),
    "several froms": lambda: (
        Author.select(Author.id, Book.id).from_(Author, Book).where(Book.author == Author.id)
    ),
    "froms and orwhere": lambda: (
        Author.select(Author.id, Book.id)
        .from_(Author, Book)
        .where((Book.author == Author.id) & (Book.n == 0))
        .orwhere((Book.author == Author.id) & (Book.n == 1))
    ),
    "filter through the key": lambda: Author.filter(books__n__gte=0),
    "on with or": lambda: Author.select(Author, Book).join(
        Book, on=((Book.author == Author.id) & ((Book.n == 0) | (Book.n == 1)))
    ),
    "lateral": lambda: Author.select(Author.id, SQL("l.id")).join(
        Book.select().where(Book.author == Author.id).alias("l"), JOIN.LATERAL
    ),
}


@pytest.mark.parametrize("join", JOINS)
def test_a_join_sees_live_rows_of_both_sides(authors, join):
    books = seen(list(Book.with_deleted()), "live")
    live = {author.id for author in seen(authors, "live")}
    assert JOINS[join]().count() == len([book for book in books if book.author_id in live])


def test_instances_of_a_join_carry_their_parents(authors):
    rows = list(Book.select(Book, Author).join(Author))
    assert count_statements(lambda: [row.author.name for row in rows]) == 0
    assert rows
    assert not any(row.author.is_deleted or row.is_deleted for row in rows)
    everything = list(Book.select(Book, Author).join(Author).with_deleted())
    assert len(everything) == Book.with_deleted().count()


def test_a_left_join_keeps_rows_whose_other_side_was_deleted(shelf):
    author = Author.create(name="a")
    Book.create(author=author, name="b").delete_instance()
    (row,) = Author.select(Author.name, Book.name.alias("book")).left_outer_join(Book).dicts()
    assert row == {"name": "a", "book": None}


def test_counts_by_group_over_a_left_join_count_live_rows(authors):
    rows = (
        Author.select(Author.name, fn.COUNT(Book.id))
        .left_outer_join(Book)
        .group_by(Author.name)
        .tuples()
    )
    books = seen(list(Book.with_deleted()), "live")
    assert dict(rows) == {
        author.name: len([book for book in books if book.author_id == author.id])
        for author in seen(authors, "live")
    }


def test_a_correlated_subquery_sees_live_rows(authors):
    many = Book.select(fn.COUNT(Book.id)).where(Book.author == Author.id).alias("many")
    found = dict(Author.select(Author.name, many).order_by(SQL("many").desc()).tuples())
    assert found == {"a0": 1, "a1": 0, "a2": 0}
    everything = many.with_deleted()
    assert dict(Author.select(Author.name, everything).tuples()) == {"a0": 2, "a1": 2, "a2": 0}


def test_a_recursive_cte_sees_live_rows(shelf):
    root = Place.create(name="root")
    branch = Place.create(name="branch", parent=root)
    Place.create(name="leaf", parent=branch)
    gone = Place.create(name="gone", parent=root, deleted_at=GONE)
    Place.create(name="below gone", parent=gone)
    base = Place.select(Place.id, Place.name).where(Place.parent.is_null())
    base = base.cte("tree", recursive=True, columns=("id", "name"))
    more = Place.select(Place.id, Place.name).join(base, on=(Place.parent == base.c.id))
    tree = base.union_all(more)
    rows = tree.select_from(tree.c.name).bind(db).tuples()
    assert sorted(name for (name,) in rows) == ["branch", "leaf", "root"]


# -- writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", SEES)
@pytest.mark.parametrize(
    "where",
    [
        lambda query: query,
        lambda query: query.where(Author.n >= 0),
        lambda query: query.where(Author.n == 0).orwhere(Author.n == 1),
        lambda query: query.where(SQL("true OR true")),
    ],
    ids=["all", "where", "orwhere", "or in SQL"],
)
def test_an_update_changes_the_rows_it_should(authors, where, flag):
    see, visibility = SEES[flag]
    expected = names(seen(authors, visibility))
    assert see(where(Author.update(n=7))).execute() == len(expected)
    assert names(Author.with_deleted().where(Author.n == 7)) == expected
    again = where(see(Author.update(n=Author.n))).returning(Author)
    if where(Author.select()).sql() == Author.select().sql():
        assert names(again.execute()) == expected


@pytest.mark.parametrize("flag", SEES)
def test_an_update_from_another_table_sees_the_rows_of_both(authors, flag):
    see, visibility = SEES[flag]
    joined_books = seen(list(Book.with_deleted()), of_joined(visibility))
    by_author = {book.author_id for book in joined_books}
    expected = [author for author in seen(authors, visibility) if author.id in by_author]
    query = Author.update(n=7).from_(Book).where(Book.author == Author.id)
    see(query).execute()
    assert names(Author.with_deleted().where(Author.n == 7)) == names(expected)


def test_an_update_answers_its_own_columns_beside_those_of_another_table(authors):
    """Both tables have an id; alone the columns need no table's name."""
    changed = Author.update(n=7).where(Author.id == authors[0].id).returning(Author)
    assert '"n"' in changed.sql()[0].partition("RETURNING")[2]
    assert '"."' not in changed.sql()[0].partition("RETURNING")[2]
    query = Author.update(n=8).from_(Book).where(Book.author == Author.id).returning(Author)
    rows = list(query)
    assert rows
    assert {row.id for row in rows} <= {author.id for author in authors}
    assert {row.n for row in rows} == {8}


@pytest.mark.parametrize("flag", SEES)
def test_an_update_from_an_alias_sees_the_rows_of_both(authors, flag):
    see, visibility = SEES[flag]
    book = Book.alias()
    joined_books = seen(list(Book.with_deleted()), of_joined(visibility))
    by_author = {one.author_id for one in joined_books}
    expected = [author for author in seen(authors, visibility) if author.id in by_author]
    see(Author.update(n=7).from_(book).where(book.author == Author.id)).execute()
    assert names(Author.with_deleted().where(Author.n == 7)) == names(expected)


def test_an_update_by_a_subquery_sees_live_rows(authors):
    Author.update(n=7).where(Author.id.in_(Book.select(Book.author))).execute()
    assert names(Author.with_deleted().where(Author.n == 7)) == ["a0"]
    latest = Book.select(fn.MAX(Book.name)).where(Book.author == Author.id)
    Author.update(name=fn.COALESCE(latest, "none")).execute()
    assert names(Author.select()) == ["b0", "none", "none"]


def test_an_update_from_a_join_sees_live_rows(shelf):
    author = Author.create(name="a")
    book = Book.create(author=author, name="b", deleted_at=GONE)
    Chapter.create(book=book, name="c")
    source = peewee.Join(Book, Chapter, on=(Chapter.book == Book.id))
    Author.update(n=7).from_(source).where(Book.author == Author.id).execute()
    assert Author.get().n == 0


def test_delete_marks_live_rows_only(authors):
    live = seen(authors, "live")
    before = {author.id: author.deleted_at for author in authors}
    assert Author.delete().execute() == len(live)
    assert Author.select().count() == 0
    for author in Author.with_deleted():
        assert author.deleted_at == before[author.id] or author in live


@pytest.mark.parametrize(
    "delete",
    [
        lambda author: Author.delete().where(Author.id == author.id).execute(),
        lambda author: Author.delete_by_id(author.id),
        lambda author: Author.delete().where(Author.name == "a0").returning(Author).execute(),
        lambda author: author.delete_instance(),
        lambda author: Author.__class__.__delitem__(Author, author.id),
        lambda author: Author.delete().where(SQL("name = 'a0' OR name = 'a0'")).execute(),
        lambda author: (
            Author.delete().where(Author.name == "a0").orwhere(Author.name == "a0").execute()
        ),
        lambda author: Author.delete().where(Author.id.in_(Book.select(Book.author))).execute(),
    ],
)
def test_a_delete_is_soft(authors, delete):
    before = utcnow()
    delete(authors[0])
    row = Author.with_deleted().where(Author.id == authors[0].id).get()
    assert before <= row.deleted_at == row.updated_at <= utcnow()
    assert row.created_at == authors[0].created_at
    assert names(Author.select()) == ["a1", "a2"]
    assert Author.with_deleted().count() == 6


def test_an_instance_knows_that_it_was_deleted_and_restored(shelf):
    author = Author.create(name="a")
    assert author.delete_instance() == 1
    assert author.is_deleted
    assert author.deleted_at == author.updated_at == Author.only_deleted().get().deleted_at
    assert author.delete_instance() == 0
    assert author.restore_instance() == 1
    assert not author.is_deleted
    assert author.updated_at == Author.get().updated_at
    assert author.restore_instance() == 0


def test_restore_brings_deleted_rows_back_only(authors):
    live = Author.get_by_id(authors[0].id)
    before = utcnow()
    assert Author.restore().where(Author.name.in_(["a0", "a3"])).execute() == 1
    assert names(Author.select()) == ["a0", "a1", "a2", "a3"]
    assert Author.get_by_id(authors[3].id).updated_at >= before
    assert Author.get_by_id(live.id).updated_at == live.updated_at


def test_restore_answers_the_rows(authors):
    rows = Author.restore().where(Author.n == 1).returning(Author).execute()
    assert names(rows) == ["a3", "a5"]
    assert not any(row.is_deleted for row in rows)


@pytest.mark.parametrize(
    "where",
    [lambda query: query, lambda query: query.where(Author.n == 0).orwhere(Author.n == 1)],
)
def test_hard_delete_removes_live_and_deleted_rows(shelf, where):
    for number, gone in enumerate([None, GONE, None, GONE]):
        Author.create(name="a", n=number % 2, deleted_at=gone)
    assert where(Author.hard_delete()).execute() == 4
    assert Author.with_deleted().count() == 0


def test_hard_delete_of_one_row_leaves_the_others(shelf):
    live, gone = Author.create(name="live"), Author.create(name="gone", deleted_at=GONE)
    assert gone.hard_delete_instance() == 1
    assert names(Author.with_deleted()) == ["live"]
    assert Author.hard_delete().where(Author.id == live.id).execute() == 1
    assert live.hard_delete_instance() == 0


def test_hard_delete_of_a_row_that_is_referred_to_is_refused(shelf):
    author = Author.create(name="a")
    Book.create(author=author, name="b", deleted_at=GONE)
    fails(ForeignKeyViolation, author.hard_delete_instance, "soft_books")
    assert Author.get() == author


# -- cascades -------------------------------------------------------------------------------


def state() -> set[str]:
    """The names of all live rows of firms, teams, members and invoices."""
    return {row.name for model in (Firm, Team, Member, Invoice) for row in model.select()}


@pytest.fixture
def firm(firms) -> Firm:
    """Two firms with two teams of two members each."""
    for letter in "ab":
        one = Firm.create(name=letter)
        Invoice.create(firm=one, name=f"{letter}-invoice")
        for team_number in (1, 2):
            team = Team.create(firm=one, name=f"{letter}{team_number}")
            for number in (1, 2):
                Member.create(team=team, name=f"{letter}{team_number}.{number}")
    return Firm.get(Firm.name == "a")


OF_A = {"a", "a1", "a2", "a1.1", "a1.2", "a2.1", "a2.2"}

DELETES: dict[str, Callable[[Firm], Any]] = {
    "instance": lambda firm: firm.delete_instance(),
    "bulk": lambda firm: Firm.delete().where(Firm.name == "a").execute(),
    "by id": lambda firm: Firm.delete_by_id(firm.id),
    "returning": lambda firm: Firm.delete().where(Firm.id == firm.id).returning(Firm).execute(),
    "returning the id": lambda firm: (
        Firm.delete().where(Firm.id == firm.id).returning(Firm.id).execute()
    ),
}
RESTORES: dict[str, Callable[[Firm], Any]] = {
    "instance": lambda firm: firm.restore_instance(),
    "bulk": lambda firm: Firm.restore().where(Firm.name == "a").execute(),
    "all": lambda firm: Firm.restore().execute(),
    "returning": lambda firm: Firm.restore().where(Firm.id == firm.id).returning(Firm).execute(),
}


@pytest.mark.parametrize("delete", DELETES)
def test_what_belongs_to_a_row_goes_with_it(firm, delete):
    before = state()
    DELETES[delete](firm)
    assert state() == before - OF_A
    moments = {row.deleted_at for model in (Firm, Team, Member) for row in model.only_deleted()}
    assert len(moments) == 1


@pytest.mark.parametrize("restore", RESTORES)
@pytest.mark.parametrize("delete", DELETES)
def test_and_comes_back_with_it(firm, delete, restore):
    before = state()
    DELETES[delete](firm)
    RESTORES[restore](firm)
    assert state() == before


@pytest.mark.parametrize("restore", RESTORES)
def test_exactly_those_come_back_that_went_with_it(firm, restore):
    Member.delete().where(Member.name == "a1.1").execute()
    Team.delete().where(Team.name == "a2").execute()
    before = state()
    firm.delete_instance()
    Member.delete().execute()
    Member.restore().where(Member.name.startswith("b")).execute()
    RESTORES[restore](firm)
    assert state() == before


def test_a_row_that_was_restored_by_itself_stays_so(firm):
    firm.delete_instance()
    Team.restore().where(Team.name == "a1").execute()
    assert {"a1", "a1.1", "a1.2"} <= state()
    assert "a" not in state()
    firm.restore_instance()
    assert state() >= OF_A


def test_a_row_that_was_deleted_again_stays_deleted(firm):
    firm.delete_instance()
    Team.restore().where(Team.name == "a1").execute()
    Team.delete().where(Team.name == "a1").execute()
    firm.restore_instance()
    assert state() & OF_A == OF_A - {"a1", "a1.1", "a1.2"}


def test_several_rows_go_and_come_back_together(firm):
    before = state()
    assert Firm.delete().execute() == 2
    assert state() == {"a-invoice", "b-invoice"}
    assert Firm.restore().execute() == 2
    assert state() == before


def test_rows_that_went_at_different_moments_come_back_together(firm):
    before = state()
    Firm.delete().where(Firm.name == "a").execute()
    Firm.delete().where(Firm.name == "b").execute()
    Firm.restore().execute()
    assert state() == before


def test_a_reference_without_cascade_stays(firm):
    team = Team.get(Team.name == "a1")
    other = Team.get(Team.name == "b1")
    Member.update(deputy=other).where(Member.team == team).execute()
    other.delete_instance()
    assert {"a1.1", "a1.2"} <= state()
    assert "b1.1" not in state()


def test_deletes_that_find_nothing_change_nothing(firm):
    before = state()
    assert Firm.delete().where(Firm.name == "x").execute() == 0
    assert Firm.restore().where(Firm.name == "a").execute() == 0
    assert state() == before


@pytest.mark.parametrize(
    "shape",
    [
        lambda query: query.returning(Firm.name),
        lambda query: query.returning(Firm).dicts(),
        lambda query: query.returning(Firm.id).tuples(),
        lambda query: query.returning(Firm).namedtuples(),
    ],
    ids=["no id", "dicts", "tuples", "namedtuples"],
)
@pytest.mark.parametrize("verb", ["delete", "restore"])
def test_rows_that_do_not_tell_their_id_either_cascade_or_are_refused(firm, verb, shape):
    if verb == "restore":
        firm.delete_instance()
    before = state()
    query = getattr(Firm, verb)().where(Firm.name == "a")
    try:
        with db.atomic():
            shape(query).execute()
    except InvalidValue:
        assert state() == before
    else:
        assert state() == before - OF_A if verb == "delete" else before | OF_A


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_tree_goes_and_comes_back_as_a_whole(rollback_db, depth):
    db.create_tables([Folder])
    root = parent = Folder.create(name="root")
    for number in range(depth):
        parent = Folder.create(name=str(number), parent=parent)
    other = Folder.create(name="other")
    root.delete_instance()
    assert list(Folder.select()) == [other]
    root.restore_instance()
    assert Folder.select().count() == depth + 2


def test_the_sessions_of_a_user_go_and_come_back_exactly(people):
    ada, bob = new_user("ada"), new_user("bob")
    kept = [new_session(ada, "kept") for _ in range(3)]
    gone = new_session(ada, "gone")
    other = new_session(bob)
    order = Order.create(user=ada, total=1)
    gone.delete_instance()
    ada.delete_instance()
    assert list(Session.select()) == [other]
    assert list(Order.select()) == [order]
    assert order.user == ada
    ada.restore_instance()
    assert set(Session.select()) == {*kept, other}
    assert list(Session.only_deleted()) == [gone]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    acts=st.lists(st.tuples(st.sampled_from(["delete", "restore"]), st.integers(0, 8)), max_size=8)
)
def test_any_order_of_deletes_and_restores_follows_the_rule(firms, acts):
    """A row that goes takes along what is live below it; coming back, it brings just that."""
    with undone():
        firm = Firm.create(name="f")
        teams = [Team.create(firm=firm, name=f"t{n}") for n in range(2)]
        members = [Member.create(team=teams[n % 2], name=f"m{n}") for n in range(6)]
        rows = [firm, *teams, *members]
        below: dict[Any, list[Any]] = {firm: teams}
        below |= {team: [m for m in members if m.team_id == team.id] for team in teams}
        marks: dict[Any, int | None] = dict.fromkeys(rows)

        def mark(row: Any, old: int | None, new: int | None) -> None:
            if marks[row] == old:
                marks[row] = new
                for one in below.get(row, []):
                    mark(one, old, new)

        for number, (act, place) in enumerate(acts):
            row = rows[place]
            if act == "delete":
                row.delete_instance()
                mark(row, None, number)
            else:
                row.restore_instance()
                if marks[row] is not None:
                    mark(row, marks[row], None)
            live = {one for model in (Firm, Team, Member) for one in model.select()}
            assert live == {one for one in rows if marks[one] is None}


# -- unique among live rows -----------------------------------------------------------------


def test_a_deleted_user_can_sign_up_again(people):
    gone = new_user("ada")
    gone.delete_instance()
    again = new_user("ada")
    assert again != gone
    assert User.get(User.email == "ada@b.c") == again
    assert User.with_deleted().where(User.email == "ada@b.c").count() == 2


@pytest.mark.parametrize(
    "restore",
    [
        lambda user: user.restore_instance(),
        lambda user: User.restore().where(User.id == user.id).execute(),
        lambda user: User.restore().execute(),
        lambda user: User.restore().where(User.id == user.id).returning(User).execute(),
    ],
)
def test_restoring_one_whose_key_was_taken_changes_nothing(people, restore):
    gone = new_user("ada")
    session = new_session(gone)
    gone.delete_instance()
    again = new_user("ada")
    fails(DuplicateKey, lambda: restore(gone), r"users\.email|users\.provider_account_id")
    assert list(User.select()) == [again]
    assert list(User.only_deleted()) == [gone]
    assert list(Session.only_deleted()) == [session]
    again.delete_instance()
    User.restore().where(User.id == gone.id).execute()
    assert list(Session.select()) == [session]


def test_a_child_whose_key_was_taken_keeps_its_parent_deleted(firm):
    firm.delete_instance()
    team = Team.get(Team.name == "b1")
    Member.create(team=team, name="a1.1")
    before = state()
    fails(DuplicateKey, firm.restore_instance, r"soft_members\.name")
    assert state() == before


def test_a_restore_that_fails_below_changes_nothing_above(clone_db):
    db.create_tables([Firm, Team, Member])
    firm, other = Firm.create(name="a"), Firm.create(name="b")
    Member.create(team=Team.create(firm=firm, name="a1"), name="m")
    firm.delete_instance()
    Member.create(team=Team.create(firm=other, name="b1"), name="m")
    with pytest.raises(DuplicateKey, match=r"soft_members\.name"):
        firm.restore_instance()
    assert names(Firm.select()) == ["b"]
    assert names(Team.select()) == ["b1"]


def test_a_delete_that_is_refused_changes_nothing(clone_db):
    db.create_tables([Firm, Team, Member])
    firm = Firm.create(name="a")
    Team.create(firm=firm, name="a1")
    with pytest.raises(InvalidValue, match="nothing was changed"):
        Firm.delete().returning(Firm).dicts().execute()
    assert names(Firm.select()) == ["a"]
    assert names(Team.select()) == ["a1"]


# -- many to many ---------------------------------------------------------------------------


@pytest.fixture
def photos(rollback_db) -> list[Photo]:
    db.create_tables([Label, Photo, Photo.labels.get_through_model()])
    labels = [Label.create(name=name) for name in "xyz"]
    photos = [Photo.create(name=name) for name in "pq"]
    for photo in photos:
        photo.labels.add(labels)
    return photos


def test_a_many_to_many_field_sees_live_rows(photos):
    Label.delete().where(Label.name == "y").execute()
    assert names(photos[0].labels) == ["x", "z"]
    assert photos[0].labels.count() == 2
    assert names(photos[0].labels.where((Label.name == "y") | (Label.name == "x"))) == ["x"]


def test_a_many_to_many_field_sees_live_rows_from_the_other_side(photos):
    photos[1].delete_instance()
    label = Label.get(Label.name == "x")
    assert names(label.photos) == ["p"]


@pytest.mark.parametrize(("flag", "expected"), [("with_deleted", "xyz"), ("only_deleted", "y")])
def test_a_many_to_many_field_knows_the_flags(photos, flag, expected):
    Label.delete().where(Label.name == "y").execute()
    assert names(getattr(photos[0].labels, flag)()) == list(expected)


def test_a_many_to_many_field_is_added_to_and_removed_from(photos):
    label = Label.get(Label.name == "x")
    photos[0].labels.remove(label)
    assert names(photos[0].labels) == ["y", "z"]
    photos[0].labels.add(label)
    photos[1].labels.clear()
    assert names(photos[0].labels) == ["x", "y", "z"]
    assert names(photos[1].labels) == []
    photos[1].labels = [label]
    assert names(photos[1].labels) == ["x"]


# -- delete_instance(recursive) -------------------------------------------------------------


def test_a_recursive_delete_takes_along_what_refers_to_the_row(firm):
    before = state()
    firm.delete_instance(recursive=True)
    assert state() == before - OF_A - {"a-invoice"}
    assert Member.with_deleted().count() == 8


def test_what_a_recursive_delete_took_along_comes_back(firm):
    before = state()
    firm.delete_instance(recursive=True)
    firm.restore_instance()
    assert state() >= before - {"a-invoice"}


def test_a_recursive_delete_of_a_user_is_soft(people):
    user = new_user("ada")
    session, order = new_session(user), Order.create(user=user, total=1)
    user.delete_instance(recursive=True)
    assert (User.select().count(), Session.select().count(), Order.select().count()) == (0, 0, 0)
    assert list(Session.with_deleted()) == [session]
    assert list(Order.with_deleted()) == [order]


# -- queries are values ---------------------------------------------------------------------

LIVE_BOOKS = (
    Book.select(Book, Author)
    .join(Author, JOIN.LEFT_OUTER)
    .where(Book.n == 0)
    .orwhere(Book.n == 1)
    .order_by(Book.name)
)
ALL_BOOKS = LIVE_BOOKS.with_deleted()


def test_a_query_of_a_module_renders_the_same_in_all_threads():
    expected = [LIVE_BOOKS.sql(), ALL_BOOKS.sql()]
    start = threading.Barrier(8)
    found: list[Any] = []

    def render() -> None:
        start.wait()
        for _ in range(50):
            found.append([LIVE_BOOKS.sql(), ALL_BOOKS.sql()])
            LIVE_BOOKS.where(Author.n == 1).only_deleted().sql()
            LIVE_BOOKS.join_from(Book, Chapter, JOIN.FULL_OUTER).sql()

    threads = [threading.Thread(target=render) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400
    assert all(one == expected for one in found)


def test_rendering_a_query_twice_adds_nothing():
    update = Author.update(n=1).where(Author.n == 2)
    for query in (LIVE_BOOKS, LIVE_BOOKS.only_deleted(), update, Author.delete(), Author.restore()):
        assert query.sql()[0] == query.sql()[0]
        assert query.sql()[0].count('"deleted_at" IS N') <= 2


def test_a_query_built_on_another_leaves_it_as_it_was():
    before = LIVE_BOOKS.sql()
    LIVE_BOOKS.where(Book.n == 5)
    LIVE_BOOKS.join_from(Book, Chapter)
    LIVE_BOOKS.only_deleted()
    assert LIVE_BOOKS.sql() == before


def test_a_restored_row_is_found_by_a_query_made_before(shelf):
    query = Author.select().where(Author.name == "a")
    author = Author.create(name="a")
    author.delete_instance()
    assert list(query.clone()) == []
    author.restore_instance()
    assert list(query.clone()) == [author]
