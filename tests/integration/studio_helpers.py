"""A studio on a real database for tests: its tables, its pages, and a browser's manners."""

from __future__ import annotations

import enum
import re
from html import unescape
from pathlib import Path
from typing import Any

import domains.orders
import domains.users
from orm_core import (
    ArrayField,
    AutoField,
    BaseModel,
    BooleanField,
    CharField,
    DateField,
    DecimalField,
    Domain,
    DoubleField,
    EnumField,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Registry,
    Service,
    TextField,
)
from orm_core.studio.app import Studio, create_app
from orm_core.studio.guard import Guard

ROOT = Path(__file__).parents[2]
PORT = 4983
HOME = f"http://localhost:{PORT}"


class Mood(enum.Enum):
    CALM = "calm"
    STORMY = "stormy"


class Artist(BaseModel):
    name = TextField()

    class Meta:
        table_name = "studio_artists"


class Piece(BaseModel):
    """A table with a column of each kind."""

    artist = ForeignKeyField(Artist, backref="pieces", null=True)
    parent = ForeignKeyField("self", backref="copies", null=True)
    code = CharField(20, unique=True)
    title = TextField(null=True)
    mood = EnumField(Mood, default=Mood.CALM, type_name="studio_mood")
    price = DecimalField(max_digits=8, decimal_places=2, null=True)
    weight = DoubleField(null=True)
    copies_made = IntegerField(default=0)
    on_loan = BooleanField(default=False)
    made_on = DateField(null=True)
    tags = ArrayField(TextField(), default=[])
    details = JSONField(null=True)
    shout = TextField(null=True, generated="upper(title)")

    class Meta:
        table_name = "studio_pieces"


class Stamp(BaseModel):
    """A table as it was before: counted keys, no soft delete; and nobody's service."""

    id = AutoField()
    deleted_at = None
    text = TextField()

    class Meta:
        table_name = "studio_stamps"


class Shelf(BaseModel):
    """A table whose keys are texts that people chose."""

    id = TextField(primary_key=True)
    note = CharField(200, null=True)
    text = TextField(null=True)

    class Meta:
        table_name = "studio_shelves"


class ShelvesService(Service[Shelf]):
    """Shelves."""


class ArtistsService(Service[Artist]):
    """Artists."""


class PiecesService(Service[Piece]):
    """Pieces."""


gallery = Domain(
    "gallery",
    models=(Artist, Piece, Stamp, Shelf),
    services=(ArtistsService, PiecesService, ShelvesService),
)
everything = Registry()
everything.register(domains.users.domain, domains.orders.domain, gallery)


class Browser:
    """Asks for pages as a browser on this machine does, and sends our own forms."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.client = create_app(studio).test_client()

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, base_url=HOME, **options)

    def post(self, path: str, data: Any = None, **options: Any) -> Any:
        form = {"_csrf": self.studio.guard.form_token, **(data or {})}
        headers = options.pop("headers", {"Origin": HOME, "Sec-Fetch-Site": "same-origin"})
        return self.client.post(path, base_url=HOME, data=form, headers=headers, **options)


def browser(database: Any, **options: Any) -> Browser:
    """A studio on a database, and a browser that looks at it."""
    guard = options.pop("guard", None) or Guard("127.0.0.1", PORT)
    return Browser(Studio(everything, database, guard, ROOT / "migrations", **options))


def words(answer: Any) -> str:
    """What a page says, without its markup."""
    text = re.sub(
        r"<(script|style|datalist)\b.*?</\1>", " ", answer.get_data(as_text=True), flags=re.S
    )
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text))).strip()


def keys_of(answer: Any) -> list[str]:
    """The keys of the rows that a page of rows shows, in its order."""
    return re.findall(r'title="([^"]+)" data-open', answer.get_data(as_text=True))


def link(answer: Any, rel: str) -> str | None:
    """Where the link of this relation leads."""
    found = re.search(rf'rel="{rel}" href="([^"]+)"', answer.get_data(as_text=True))
    return unescape(found[1]) if found else None


def hidden(answer: Any, name: str) -> str:
    """The value of a form's hidden field."""
    found = re.search(rf'name="{re.escape(name)}" value="([^"]*)"', answer.get_data(as_text=True))
    assert found, name
    return unescape(found[1])
