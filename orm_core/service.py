"""Services: the verbs of a table, checked, counted and logged; nothing for an author to repeat.

::

    class UsersService(Service[User]):
        \"\"\"Users, by id and by e-mail.\"\"\"

        find_by_email = finder(User.email)

    user = UsersService.create({"email": "ada@example.com", ...}, logger)
    UsersService.find_by_email("ada@example.com", include_deleted=True)

Every verb takes ``logger`` (``audit`` and ``error``, see ``orm_core.loggers``) and ``tx``. Audit
lines are written after the commit, so they tell what stands. An error is logged and goes on.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping
from types import GenericAlias
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    cast,
    get_args,
    get_origin,
    overload,
)
from uuid import UUID

from orm_core.database.transactions import Transaction
from orm_core.errors import InvalidValue, NotFound, RegistryError
from orm_core.loggers import Logger
from orm_core.models.base import BaseModel
from orm_core.models.bulk_insert import Returning, insert_rows
from orm_core.models.payloads import (
    Payload,
    Where,
    read_changes,
    read_new,
    read_where,
)
from orm_core.queries.bulk import update_rows
from orm_core.queries.one_row import find_by_key, insert, soft_delete, update
from orm_core.queries.paging import (
    MAX_PAGE_SIZE,
    Keyset,
    Page,
    check_count,
    keyset_page,
    numbered_page,
    read_order,
)
from orm_core.queries.rows import first_returned
from orm_core.queries.streaming import Progress, stream
from orm_core.queries.upsert import upsert, upsert_rows
from orm_core.verb import Verb, check_tx, is_key

M = TypeVar("M", bound=BaseModel)
#: the payloads of ``create`` and of ``update``, as `orm-core types generate` writes them
if TYPE_CHECKING:
    from typing_extensions import TypeVar as Defaulting

    New = Defaulting("New", bound=Payload, default=Payload)
    Changes = Defaulting("Changes", bound=Payload, default=Payload)
else:
    New, Changes = TypeVar("New"), TypeVar("Changes")
Key = UUID | str


class Service(Generic[M, New, Changes]):
    """The verbs that every table's service has. ``class UsersService(Service[User])``.

    Ids are ``uuid.UUID`` or their text. Payloads and conditions are checked before any SQL:
    ``UnknownField``, ``MissingField``, ``InvalidValue``. What the server refuses is ``DuplicateKey``,
    ``ForeignKeyViolation`` and so on, see ``orm_core.errors``. Rows that are soft-deleted are
    neither found nor changed unless ``include_deleted=True`` asks for them.
    """

    model: ClassVar[type[Any]]

    if not TYPE_CHECKING:  # an alias of typing knows no defaults before Python 3.13 (PEP 696)
        __class_getitem__ = classmethod(GenericAlias)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            if isinstance(get_origin(base), type) and issubclass(get_origin(base), Service):
                model = get_args(base)[0]
                if isinstance(model, type) and issubclass(model, BaseModel):
                    cls.model = model

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} is a namespace: call its verbs on the class.")

    @classmethod
    def verb(cls, action: str, logger: Logger | None, tx: Transaction | None) -> Verb:
        """What surrounds a call that has a logger; for verbs of your own, see ``Verb``."""
        return Verb(cls._model(), action, logger, tx)

    @classmethod
    def _model(cls, tx: Transaction | None = None) -> Any:
        """The model. Raises ``StaleTransaction`` unless ``tx`` is open and of its database."""
        try:
            model = cls.model
        except AttributeError:
            raise RegistryError(
                f"{cls.__name__} has no model: write class {cls.__name__}(Service[YourModel])."
            ) from None
        if tx is not None:
            check_tx(tx, model)
        return model

    # -- create -----------------------------------------------------------------------------

    @classmethod
    def create(
        cls, payload: New, logger: Logger | None = None, *, tx: Transaction | None = None
    ) -> M:
        """Insert a row and answer it as the server stored it."""
        row: M
        if logger is None:  # nobody to tell of it
            row = insert(cls._model(tx), payload)
            return row
        with cls.verb("create", logger, tx) as verb:
            row = insert(cls.model, payload)
            verb.audit("created", row)
            return row

    @overload
    @classmethod
    def create_many(
        cls,
        payloads: Iterable[New],
        logger: Logger | None = None,
        *,
        returning: Literal["rows"] = "rows",
        tx: Transaction | None = None,
    ) -> builtins.list[M]: ...
    @overload
    @classmethod
    def create_many(
        cls,
        payloads: Iterable[Payload],
        logger: Logger | None = None,
        *,
        returning: Literal["ids"],
        tx: Transaction | None = None,
    ) -> builtins.list[UUID]: ...
    @classmethod
    def create_many(
        cls,
        payloads: Iterable[Payload],
        logger: Logger | None = None,
        *,
        returning: Returning = "rows",
        tx: Transaction | None = None,
    ) -> builtins.list[Any]:
        """Insert rows, all or none, and answer them, or their ids, in the same order.

        Many rows go by COPY, fewer in one INSERT; both do the same.
        """
        with cls.verb("create_many", logger, tx) as verb:
            if returning not in ("rows", "ids"):
                raise InvalidValue('returning takes "rows" or "ids"; no SQL was sent.')
            some = _many(payloads)
            if not some:
                return []
            made = insert_rows(cls.model, some, returning)
            verb.audit_many("created", made)
            return made

    @classmethod
    def upsert(
        cls,
        payload: New,
        logger: Logger | None = None,
        *,
        on: Iterable[str] | None = None,
        tx: Transaction | None = None,
    ) -> M:
        """Insert a row or, when a live one has the same key, update that one; answers the row.

        ``on`` names the key's fields; not needed when the payload has just one unique key.
        Fields that the payload does not name keep their values. Raises ``DuplicateKey`` when a
        soft-deleted row holds the key.
        """
        with cls.verb("upsert", logger, tx) as verb:
            row: M = upsert(cls.model, read_new(cls.model, payload), on)
            verb.audit("upserted", row)
            return row

    @classmethod
    def upsert_many(
        cls,
        payloads: Iterable[Payload],
        logger: Logger | None = None,
        *,
        on: Iterable[str] | None = None,
        tx: Transaction | None = None,
    ) -> builtins.list[M]:
        """``upsert`` rows, all or none, and answer them in the same order.

        One statement for each set of names; one for each row where a secret is written. Raises
        ``InvalidValue`` when two payloads have the same key.
        """
        with cls.verb("upsert_many", logger, tx) as verb:
            some = _many(payloads)
            if not some:
                return []
            rows: builtins.list[M] = upsert_rows(cls.model, some, on)
            verb.audit_many("upserted", rows)
            return rows

    # -- read -------------------------------------------------------------------------------

    @classmethod
    def get(
        cls,
        id: Key,
        logger: Logger | None = None,
        *,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M:
        """The row with this id. Raises ``NotFound`` when there is none."""
        with cls.verb("get", logger, tx):
            row: M | None = find_by_key(cls.model, id, include_deleted)
            if row is None:
                raise NotFound(
                    f"No {'' if include_deleted else 'live '}row of "
                    f"{cls.model._meta.table_name} has this id."
                )
            return row

    @classmethod
    def find_by_id(
        cls,
        id: Key,
        logger: Logger | None = None,
        *,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M | None:
        """The row with this id, or None."""
        row: M | None
        if logger is None:
            row = find_by_key(cls._model(tx), id, include_deleted)
            return row
        with cls.verb("find_by_id", logger, tx):
            row = find_by_key(cls.model, id, include_deleted)
            return row

    @classmethod
    def find(
        cls,
        where: Where = None,
        logger: Logger | None = None,
        *,
        order_by: Any = None,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M | None:
        """The first row that matches, or None. ``where``: see ``orm_core.models.payloads``."""
        with cls.verb("find", logger, tx):
            query = _select(cls.model, read_where(cls.model, where), include_deleted)
            query = query.order_by(*read_order(cls.model, order_by)).limit(1)
            return next(iter(query), None)

    @classmethod
    def list(
        cls,
        where: Where = None,
        logger: Logger | None = None,
        *,
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> builtins.list[M]:
        """All rows that match, in the order of their creation unless ``order_by`` says another."""
        with cls.verb("list", logger, tx):
            query = _select(cls.model, read_where(cls.model, where), include_deleted)
            query = query.order_by(*read_order(cls.model, order_by))
            return builtins.list(query.limit(limit).offset(offset))

    @classmethod
    def page(
        cls,
        where: Where = None,
        logger: Logger | None = None,
        *,
        size: int = 50,
        number: int | None = None,
        after: str | None = None,
        order_by: Any = None,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> Page[M]:
        """One page of ``size`` rows (at most 1,000).

        With ``number`` (from 1) a page by offset, which counts all rows; else a keyset page,
        the first or the one ``after`` the ``next_cursor`` of another, fast at any depth.
        """
        with cls.verb("page", logger, tx):
            check_count("size", size, 1, MAX_PAGE_SIZE)
            query = _select(cls.model, read_where(cls.model, where), include_deleted)
            if number is None:
                return keyset_page(query, Keyset(cls.model, order_by), size, after)
            if after is not None:
                raise InvalidValue("A page is named by number or by after, not by both.")
            return numbered_page(query, read_order(cls.model, order_by), size, number)

    @classmethod
    def iterate(
        cls,
        where: Where = None,
        logger: Logger | None = None,
        *,
        order_by: Any = None,
        batch: int = 1000,
        progress: Progress | None = None,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> Iterator[M]:
        """All rows that match, one after the other, ``batch`` of them in memory at a time.

        ``progress`` is called with the number of rows read so far. See ``orm_core.stream``.
        """
        with cls.verb("iterate", logger, tx):
            query = _select(cls.model, read_where(cls.model, where), include_deleted)
            rows = stream(query.order_by(*read_order(cls.model, order_by)), batch, progress)
        return cls._passed_on(rows, logger, tx)

    @classmethod
    def _passed_on(
        cls, rows: Iterator[M], logger: Logger | None, tx: Transaction | None
    ) -> Iterator[M]:
        with cls.verb("iterate", logger, tx):
            yield from rows

    @classmethod
    def count(
        cls,
        where: Where = None,
        logger: Logger | None = None,
        *,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> int:
        """How many rows match."""
        with cls.verb("count", logger, tx):
            query = _select(cls.model, read_where(cls.model, where), include_deleted)
            return int(query.count())

    @classmethod
    def exists(
        cls,
        where: Where = None,
        logger: Logger | None = None,
        *,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> bool:
        """Whether any row matches."""
        with cls.verb("exists", logger, tx):
            query = _select(cls.model, read_where(cls.model, where), include_deleted)
            return bool(query.exists())

    # -- change -----------------------------------------------------------------------------

    @classmethod
    def update(
        cls,
        id: Key,
        payload: Changes,
        logger: Logger | None = None,
        *,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> M | None:
        """Change fields of a row; answers it as stored, or None (and no audit) without one.

        Where rows have a version, the payload names the one that was read. Raises ``StaleRow``
        when the row has another one by now.
        """
        row: M | None
        if logger is None:
            row = update(cls._model(tx), id, payload, include_deleted)
            return row
        with cls.verb("update", logger, tx) as verb:
            row = update(cls.model, id, payload, include_deleted)
            if row is not None:
                verb.audit("updated", row)
            return row

    @classmethod
    def update_many(
        cls,
        payloads: Iterable[Payload],
        logger: Logger | None = None,
        *,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> builtins.list[M]:
        """Change rows, each by a payload of its own that names its ``id``, all or none.

        Answers the rows found, in the order of the payloads; ids without a row are left out.
        Where rows have a version, each payload names it, as for ``update``.
        """
        with cls.verb("update_many", logger, tx) as verb:
            some = _many(payloads)
            if not some:
                return []
            found = update_rows(cls.model, some, include_deleted=include_deleted)
            verb.audit_many("updated", found)
            return found

    @classmethod
    def update_where(
        cls,
        where: Where,
        payload: Changes,
        logger: Logger | None = None,
        *,
        tx: Transaction | None = None,
        include_deleted: bool = False,
    ) -> int:
        """Set the same fields in all rows that match; answers how many. None means all rows.

        A version in the payload is one more condition.
        """
        with cls.verb("update_where", logger, tx) as verb:
            predicates = read_where(cls.model, where)
            if where is not None and not predicates:
                raise InvalidValue(
                    "update_where() got conditions without a condition in them; all rows are "
                    "meant by None. No SQL was sent."
                )
            changes = read_changes(cls.model, payload)
            if cls.model._meta.version in changes:
                predicates.append(cls.model._meta.version == changes.pop(cls.model._meta.version))
            query = cls.model.update(changes)
            query = query.with_deleted() if include_deleted else query
            count = int((query.where(*predicates) if predicates else query).execute())
            if count:
                verb.audit("updated", None, count=count)
            return count

    # -- delete -----------------------------------------------------------------------------

    @classmethod
    def soft_delete(
        cls, id: Key, logger: Logger | None = None, *, tx: Transaction | None = None
    ) -> M | None:
        """Mark a row, and those that cascade, as deleted; answers it, or None without one."""
        row: M | None
        if logger is None:
            row = soft_delete(cls._model(tx), id)
            return row
        with cls.verb("soft_delete", logger, tx) as verb:
            row = soft_delete(cls.model, id)
            if row is not None:
                verb.audit("deleted", row)
            return row

    @classmethod
    def restore(
        cls, id: Key, logger: Logger | None = None, *, tx: Transaction | None = None
    ) -> M | None:
        """Bring a soft-deleted row back, with those that went with it; None without one."""
        with cls.verb("restore", logger, tx) as verb:
            row: M | None = first_returned(cls.model.restore().where(is_key(cls.model, id)))
            if row is not None:
                verb.audit("restored", row)
            return row

    @classmethod
    def hard_delete(
        cls, id: Key, logger: Logger | None = None, *, tx: Transaction | None = None
    ) -> bool:
        """Remove a row for good, live or soft-deleted; answers whether there was one.

        Raises ``ForeignKeyViolation`` when other rows refer to it.
        """
        with cls.verb("hard_delete", logger, tx) as verb:
            row: M | None = first_returned(cls.model.hard_delete().where(is_key(cls.model, id)))
            if row is not None:
                verb.audit("deleted for good", row)
            return row is not None


def _many(payloads: Any) -> builtins.list[Any]:
    if isinstance(payloads, Mapping | str | bytes) or not isinstance(payloads, Iterable):
        raise InvalidValue("Several payloads are given as a list of dicts; no SQL was sent.")
    return builtins.list(cast("Iterable[Any]", payloads))


def _select(model: Any, predicates: builtins.list[Any], include_deleted: bool) -> Any:
    query = model.select().where(*predicates) if predicates else model.select()
    return query.with_deleted() if include_deleted else query
