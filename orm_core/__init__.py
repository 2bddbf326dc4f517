"""orm_core: a data layer for small Python services on PostgreSQL, built on Peewee."""

import logging
from importlib import import_module

#: the public names by their modules, each of which is imported when a name of it is first used;
#: for checkers they are in __init__.pyi
_NAMES = {
    "audit.service": "AuditService",
    "crypto.in_use": "use_index_keys use_key_ring",
    "crypto.index": "IndexKeys",
    "crypto.ring": "KeyRing",
    "crypto.secret": "Secret SecretJSON",
    "database.acting": "acting_as",
    "database.connection": "close_db connect_db db initialize_db transaction",
    "database.database": "Database",
    "database.events": "QueryEvent signals",
    "database.limits": "time_limit",
    "database.retries": "run_transaction",
    "database.row_scope": "row_scope setting",
    "database.transactions": "Transaction",
    "domain": "Domain Registry registry",
    "errors": (
        "AuthenticationFailed CheckViolation CommitUnknown ConfigurationError ConnectTimeout "
        "ConnectionFailed ConnectionInUse ConnectionLost ConnectionRefused "
        "ConstraintViolation DatabaseMissing DeadlockDetected DuplicateKey EmbeddedError "
        "ForeignKeyViolation HostUnknown InsufficientPrivilege InvalidStatement InvalidValue "
        "KeyRingError LockTimeout MigrationError MissingField NoAnswer NotFound "
        "NotNullViolation OrmCoreError PolicyViolation PoolClosed PoolTimeout QueryError "
        "RegistryError SecretErased SecretUnreadable SerializationFailure ServerRejectedValue "
        "ServerUnavailable StaleRow StaleTransaction StatementTimeout TlsFailed "
        "TransactionAborted TransactionError UnknownField"
    ),
    "finders": "finder",
    "loggers": "Logger StdlibLogger StructlogLogger",
    "models.audit_log": "AuditEntry",
    "models.base": "BaseModel",
    "models.encrypted": "EncryptedJSONField EncryptedTextField",
    "models.fields": (
        "ArrayField AutoField BigAutoField BigIntegerField BooleanField CharField DateField "
        "DateTimeField DecimalField DoubleField EnumField IntegerField JSONField OtherField "
        "SmallIntegerField TextField UUIDField VersionField"
    ),
    "models.identifiers": "utcnow uuid7",
    "models.policies": "Policy",
    "models.references": "Backref DeferredForeignKey ForeignKeyField ForeignKeyId",
    "models.soft_delete": "SelectQuery",
    "peewee_facade": "Load ManyToManyField fn",
    "queries.compiled": "Compiled compiled parameter",
    "queries.paging": "Page",
    "queries.streaming": "stream",
    "schemas": "to_dict to_pydantic",
    "service": "Key Service",
    "settings": "Settings",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# A library writes no log lines unless the service configures logging.
logging.getLogger("orm_core").addHandler(logging.NullHandler())
