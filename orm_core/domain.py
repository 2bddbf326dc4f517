"""Domains and the registry of them.

::

    domain = Domain("orders", models=(Order,), services=(OrdersService,))
    registry.register(domain)           # or registry.discover()
    registry.router(db).run()           # in the deploy script

A ``Domain`` is a value: making or importing one changes nothing. ``register`` is all or nothing;
it makes the domain's tables known to the metrics and the query events.
"""

from __future__ import annotations

# What a caller hands over is checked, whatever the annotations say.
# pyright: reportUnnecessaryIsInstance=false
import importlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from orm_core import peewee_facade as peewee
from orm_core.database.events import signals
from orm_core.errors import RegistryError
from orm_core.models.base import BaseModel
from orm_core.models.fields import EnumField
from orm_core.models.owners import owned_fields, owner_field
from orm_core.service import Service

if TYPE_CHECKING:
    from pathlib import Path

    from peewee_migrate import Router

logger: logging.Logger = logging.getLogger("orm_core.registry")

NAMESPACE = "domains"
ENTRY_POINTS = "orm_core.domains"


@dataclass(frozen=True, slots=True)
class Domain:
    """A service's tables and what may be done with them, under one name.

    Rows that were soft-deleted longer than ``retention`` ago are removed for good by
    ``orm-core purge``; None keeps them.
    """

    name: str
    models: tuple[type[BaseModel], ...] = ()
    services: tuple[type[Service[Any, Any, Any]], ...] = ()
    #: whether every change of a row is kept in the audit trail; "chain" links the trail's entries
    audit: bool | Literal["chain"] = False
    retention: timedelta | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise RegistryError("A domain's name must be a Python identifier, such as orders.")
        object.__setattr__(self, "models", tuple(self.models))
        object.__setattr__(self, "services", tuple(self.services))
        for model in self.models:
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                raise RegistryError(f"Domain {self.name}: each model must be a BaseModel class.")
        for service in self.services:
            if not (isinstance(service, type) and issubclass(service, Service)):
                raise RegistryError(f"Domain {self.name}: each service must be a Service class.")
        if self.audit not in (True, False, "chain"):
            raise RegistryError(f'Domain {self.name}: audit takes True, False or "chain".')
        age = self.retention
        if age is not None and not (isinstance(age, timedelta) and age > timedelta()):
            raise RegistryError(
                f"Domain {self.name}: retention must be a timedelta above zero, such as "
                "timedelta(days=90), or None."
            )

    def __repr__(self) -> str:
        models = ", ".join(model.__name__ for model in self.models)
        services = ", ".join(service.__name__ for service in self.services)
        return f"<Domain {self.name}: {models or 'no models'}; {services or 'no services'}>"


#: the domain that comes with the first one that is audited
TRAIL: Final = "audit_log"
#: the domain that comes with the first one whose secrets have owners
DATA_KEYS: Final = "data_keys"


def table_of(model: Any) -> str:
    """The name by which metrics and messages know a model's table, with its schema if any."""
    meta = model._meta
    return f"{meta.schema}.{meta.table_name}" if meta.schema else str(meta.table_name)


class Registry:
    """The domains of one service, in the order of their registration.

    ``registry`` is the process's own; a fresh ``Registry()`` stands beside it.
    """

    def __init__(self) -> None:
        self._domains: dict[str, Domain] = {}

    def __iter__(self) -> Iterator[Domain]:
        return iter(self._domains.values())

    def __len__(self) -> int:
        return len(self._domains)

    def __contains__(self, domain: object) -> bool:
        if isinstance(domain, Domain):
            return self._domains.get(domain.name) == domain
        return domain in self._domains

    def __getitem__(self, name: str) -> Domain:
        try:
            return self._domains[name]
        except KeyError:
            known = ", ".join(self._domains) or "none"
            raise RegistryError(f"No domain {name!r} is registered; there is: {known}.") from None

    def __repr__(self) -> str:
        lines = "".join(f"\n  {domain!r}" for domain in self)
        return f"<Registry of {len(self)} domain(s){lines}>"

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """All models, each after those that it refers to."""
        return tuple(peewee.sort_models([model for domain in self for model in domain.models]))

    @property
    def services(self) -> tuple[type[Service[Any, Any, Any]], ...]:
        """All services."""
        return tuple(service for domain in self for service in domain.services)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of all tables."""
        return tuple(table_of(model) for model in self.models)

    # -- registering ------------------------------------------------------------------------

    def register(self, *domains: Domain) -> None:
        """Add domains, all or none; the same domain again is no change.

        Domains that refer to each other are given in one call. Raises ``RegistryError`` for a
        name or a table taken, an enum type with other labels, a service without its model, a
        foreign key to a model that is not registered.
        """
        candidate = dict(self._domains)
        for domain in domains:
            if not isinstance(domain, Domain):
                raise RegistryError("register() takes Domain values.")
            present = candidate.setdefault(domain.name, domain)
            if present != domain:
                raise RegistryError(f"The domain name {domain.name!r} is taken by {present!r}.")
        _add_trail(candidate)
        _add_data_keys(candidate)
        problems = _problems(candidate)
        if problems:
            raise RegistryError(" ".join(problems))
        self._domains = candidate
        self._wire()

    def _wire(self) -> None:
        from orm_core import metrics

        for domain in self:
            _declare_audit(domain)
        chained = any(domain.audit == "chain" for domain in self)
        for trail in filter(_is_trail, self.models):
            trail._meta.audit = "chain" if chained else "trail"
        signals.declare(self.tables)
        metrics.observe(self.tables)

    def discover(
        self,
        names: Iterable[str] | None = None,
        *,
        namespace: str = NAMESPACE,
        entry_points: str = ENTRY_POINTS,
    ) -> tuple[Domain, ...]:
        """Register what the namespace's packages and the installed packages offer.

        Only domains of these ``names`` (default: those of ``ORM_CORE_DOMAINS``, else all).

        A package of the namespace offers its ``domain``; an entry point names a ``Domain``.
        A package of the namespace and an entry point go by the domain's name. An import error stops everything: a domain that is passed over would look like tables to
        drop. Answers the domains found, in the order of their names.
        """
        wanted = _wanted(names)
        found = {domain.name: domain for domain in _in_namespace(namespace, wanted)}
        for domain in _in_entry_points(entry_points, wanted):
            if found.setdefault(domain.name, domain) != domain:
                raise RegistryError(f"Two installed packages offer a domain {domain.name!r}.")
        missing = sorted(set(wanted or ()) - set(found))
        if missing:
            raise RegistryError(f"There is no domain {', '.join(missing)} to discover.")
        domains = tuple(found[name] for name in sorted(found))
        self.register(*domains)
        return domains

    def check(self) -> None:
        """Raise ``RegistryError`` when the registered domains do not fit together (any more)."""
        problems = _problems(self._domains)
        if problems:
            raise RegistryError(" ".join(problems))

    # -- migrations -------------------------------------------------------------------------

    def router(self, database: peewee.Database, folder: str | Path = "migrations") -> Router:
        """A peewee-migrate Router for a deploy script: ``registry.router(db).run()``.

        Never use one in a process that serves requests: it replays old files under a mock of
        ``execute_sql`` that other threads would meet. Raises ``MigrationError`` when the folder
        is missing.
        """
        from orm_core.migrations.runner import router

        self.check()
        return router(database, folder)


def _add_trail(domains: dict[str, Domain]) -> None:
    """The audit trail, where a domain is audited and none has the trail's model itself."""
    if not any(domain.audit for domain in domains.values()):
        return
    from orm_core.models.audit_log import AuditEntry  # most services have no trail

    if any(AuditEntry in domain.models for domain in domains.values()):
        return
    if TRAIL in domains:
        raise RegistryError(f"The domain name {TRAIL!r} is that of the audit trail.")
    domains[TRAIL] = Domain(TRAIL, models=(AuditEntry,))


def _add_data_keys(domains: dict[str, Domain]) -> None:
    """The table of data keys, where secrets have owners and no domain has its model itself."""
    models = [model for domain in domains.values() for model in domain.models]
    if not any(map(owned_fields, models)):
        return
    from orm_core.models.data_keys import DataKey  # most services have no owners

    if DataKey in models:
        return
    if DATA_KEYS in domains:
        raise RegistryError(f"The domain name {DATA_KEYS!r} is that of the data keys.")
    domains[DATA_KEYS] = Domain(DATA_KEYS, models=(DataKey,))


def _is_trail(model: Any) -> bool:
    return model._meta.audit in ("trail", "chain")


def _declare_audit(domain: Domain) -> None:
    for model in domain.models:
        if _is_trail(model):
            continue
        for table in (model, *(field.through_model for field in model._meta.manytomany.values())):
            table._meta.audit = bool(domain.audit)
        if domain.audit:
            model._meta.database.audited = True


def _wanted(names: Iterable[str] | None) -> frozenset[str] | None:
    if names is None:
        from orm_core import settings

        text = settings.load().domains
        names = [name.strip() for name in text.split(",")] if text else None
    if isinstance(names, str):
        names = [names]
    return None if names is None else frozenset(names)


def _in_namespace(namespace: str, wanted: frozenset[str] | None) -> Iterator[Domain]:
    try:
        package = importlib.import_module(namespace)
    except ModuleNotFoundError as error:
        if error.name == namespace:
            return
        raise
    _refuse_plain_folders(package)
    import pkgutil

    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda one: one.name):
        if wanted is not None and found.name not in wanted:
            continue
        name = f"{namespace}.{found.name}"
        module = _imported(name)
        domain = getattr(module, "domain", None)
        if not isinstance(domain, Domain):
            raise RegistryError(
                f"{name} has no `domain = Domain(...)`; every package of {namespace} offers one."
            )
        yield domain


def _refuse_plain_folders(package: Any) -> None:
    """A folder of modules without ``__init__.py`` would be passed over."""
    from pathlib import Path

    # An editable install puts an entry into the path that is no folder.
    for place in filter(Path.is_dir, map(Path, package.__path__)):
        for folder in sorted(place.iterdir()):
            if not (folder / "__init__.py").exists() and any(folder.glob("*.py")):
                raise RegistryError(
                    f"{folder} has no __init__.py with `domain = Domain(...)`, so it would be "
                    "passed over; every folder of domains is a package that offers one."
                )


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        error.add_note(f"The domain {name} can't be imported.")
        raise


def _in_entry_points(group: str, wanted: frozenset[str] | None) -> Iterator[Domain]:
    from importlib import metadata  # takes as long to import as half of this package

    for entry in sorted(metadata.entry_points(group=group), key=lambda one: one.name):
        if wanted is not None and entry.name not in wanted:
            continue
        try:
            domain = entry.load()
        except Exception as error:
            error.add_note(f"The entry point {entry.value} of {group} can't be loaded.")
            raise
        if not isinstance(domain, Domain):
            raise RegistryError(f"The entry point {entry.value} of {group} is no Domain.")
        if domain.name != entry.name:
            raise RegistryError(
                f"The entry point {entry.name} of {group} offers the domain {domain.name!r}; give "
                "it the domain's name."
            )
        yield domain


def _problems(domains: dict[str, Domain]) -> list[str]:
    owners: dict[str, tuple[str, type]] = {}
    enums: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for domain in domains.values():
        for model in domain.models:
            name, owner = table_of(model), (domain.name, model)
            first = owners.setdefault(name, owner)
            if first != owner:
                problems.append(
                    f"Table {name!r} of {domain.name}.{model.__name__} is claimed already by "
                    f"{first[0]}.{first[1].__name__}."
                )
            problems += _enum_problems(model, enums)
            problems += _owner_problems(model)
    registered = {model for _, model in owners.values()}
    for domain in domains.values():
        problems += _reference_problems(domain, registered)
    return problems


def _owner_problems(model: Any) -> Iterator[str]:
    for field in owned_fields(model):
        try:
            owner_field(field)
        except RegistryError as error:
            yield str(error)


def _enum_problems(model: Any, enums: dict[str, tuple[str, ...]]) -> list[str]:
    return [
        f"The enum type {field.type_name!r} of {field.label} has other labels elsewhere."
        for field in model._meta.sorted_fields
        if isinstance(field, EnumField)
        and enums.setdefault(field.type_name, field.labels) != field.labels
    ]


def _reference_problems(domain: Domain, registered: set[type]) -> list[str]:
    unknown = [
        f"{domain.name}.{model.__name__}.{key.name} refers to {target.__name__}, which no "
        "registered domain has; register its domain first or together."
        for model in domain.models
        for key, target in model._meta.refs.items()
        if target not in registered
    ]
    strangers = [
        f"The model of {domain.name}.{service.__name__} is not among the domain's models."
        for service in domain.services
        if getattr(service, "model", None) not in domain.models
    ]
    return unknown + strangers


#: the registry of this process
registry: Registry = Registry()
