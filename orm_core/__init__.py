"""orm_core: a data layer for small Python services on PostgreSQL, built on Peewee."""

import logging

from orm_core.audit.service import AuditService
from orm_core.crypto.in_use import use_index_keys, use_key_ring
from orm_core.crypto.index import IndexKeys
from orm_core.crypto.ring import KeyRing
from orm_core.crypto.secret import Secret, SecretJSON
from orm_core.database.acting import acting_as
from orm_core.database.connection import (
    close_db,
    connect_db,
    db,
    initialize_db,
    transaction,
)
from orm_core.database.database import Database
from orm_core.database.events import QueryEvent, signals
from orm_core.database.limits import time_limit
from orm_core.database.retries import run_transaction
from orm_core.database.row_scope import row_scope, setting
from orm_core.database.transactions import Transaction
from orm_core.errors import (
    AuthenticationFailed,
    CheckViolation,
    CommitUnknown,
    ConfigurationError,
    ConnectionFailed,
    ConnectionInUse,
    ConnectionLost,
    ConnectionRefused,
    ConnectTimeout,
    ConstraintViolation,
    DatabaseMissing,
    DeadlockDetected,
    DuplicateKey,
    EmbeddedError,
    ForeignKeyViolation,
    HostUnknown,
    InsufficientPrivilege,
    InvalidStatement,
    InvalidValue,
    KeyRingError,
    LockTimeout,
    MigrationError,
    MissingField,
    NoAnswer,
    NotFound,
    NotNullViolation,
    OrmCoreError,
    PolicyViolation,
    PoolClosed,
    PoolTimeout,
    QueryError,
    RegistryError,
    SecretErased,
    SecretUnreadable,
    SerializationFailure,
    ServerRejectedValue,
    ServerUnavailable,
    StaleRow,
    StaleTransaction,
    StatementTimeout,
    TlsFailed,
    TransactionAborted,
    TransactionError,
    UnknownField,
)
from orm_core.finder import finder
from orm_core.loggers import Logger, StdlibLogger, StructlogLogger
from orm_core.models.audit_log import AuditEntry
from orm_core.models.base import BaseModel
from orm_core.models.encrypted import EncryptedJSONField, EncryptedTextField
from orm_core.models.fields import (
    ArrayField,
    AutoField,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    DoubleField,
    EnumField,
    IntegerField,
    JSONField,
    OtherField,
    SmallIntegerField,
    TextField,
    UUIDField,
    VersionField,
)
from orm_core.models.identifiers import utcnow, uuid7
from orm_core.models.policies import Policy
from orm_core.models.references import (
    Backref,
    DeferredForeignKey,
    ForeignKeyField,
    ForeignKeyId,
)
from orm_core.models.soft_delete import SelectQuery
from orm_core.peewee_facade import Load, ManyToManyField, fn
from orm_core.queries.compiled import Compiled, compiled, parameter
from orm_core.queries.paging import Page
from orm_core.queries.streaming import stream
from orm_core.registry import Domain, Registry, registry
from orm_core.schemas import to_dict, to_pydantic
from orm_core.service import Key, Service
from orm_core.settings import Settings

# A library writes no log lines unless the service configures logging.
logging.getLogger("orm_core").addHandler(logging.NullHandler())

__all__ = [
    "ArrayField",
    "AuditEntry",
    "AuditService",
    "AuthenticationFailed",
    "AutoField",
    "Backref",
    "BaseModel",
    "BigAutoField",
    "BigIntegerField",
    "BooleanField",
    "CharField",
    "CheckViolation",
    "CommitUnknown",
    "Compiled",
    "ConfigurationError",
    "ConnectTimeout",
    "ConnectionFailed",
    "ConnectionInUse",
    "ConnectionLost",
    "ConnectionRefused",
    "ConstraintViolation",
    "Database",
    "DatabaseMissing",
    "DateField",
    "DateTimeField",
    "DeadlockDetected",
    "DecimalField",
    "DeferredForeignKey",
    "Domain",
    "DoubleField",
    "DuplicateKey",
    "EmbeddedError",
    "EncryptedJSONField",
    "EncryptedTextField",
    "EnumField",
    "ForeignKeyField",
    "ForeignKeyId",
    "ForeignKeyViolation",
    "HostUnknown",
    "IndexKeys",
    "InsufficientPrivilege",
    "IntegerField",
    "InvalidStatement",
    "InvalidValue",
    "JSONField",
    "Key",
    "KeyRing",
    "KeyRingError",
    "Load",
    "LockTimeout",
    "Logger",
    "ManyToManyField",
    "MigrationError",
    "MissingField",
    "NoAnswer",
    "NotFound",
    "NotNullViolation",
    "OrmCoreError",
    "OtherField",
    "Page",
    "Policy",
    "PolicyViolation",
    "PoolClosed",
    "PoolTimeout",
    "QueryError",
    "QueryEvent",
    "Registry",
    "RegistryError",
    "Secret",
    "SecretErased",
    "SecretJSON",
    "SecretUnreadable",
    "SelectQuery",
    "SerializationFailure",
    "ServerRejectedValue",
    "ServerUnavailable",
    "Service",
    "Settings",
    "SmallIntegerField",
    "StaleRow",
    "StaleTransaction",
    "StatementTimeout",
    "StdlibLogger",
    "StructlogLogger",
    "TextField",
    "TlsFailed",
    "Transaction",
    "TransactionAborted",
    "TransactionError",
    "UUIDField",
    "UnknownField",
    "VersionField",
    "acting_as",
    "close_db",
    "compiled",
    "connect_db",
    "db",
    "finder",
    "fn",
    "initialize_db",
    "parameter",
    "registry",
    "row_scope",
    "run_transaction",
    "setting",
    "signals",
    "stream",
    "time_limit",
    "to_dict",
    "to_pydantic",
    "transaction",
    "use_index_keys",
    "use_key_ring",
    "utcnow",
    "uuid7",
]
