"""The triggers that write the audit trail, as part of the models' schema; see docs/audit.md.

A trigger sees every door (services, COPY, raw SQL, other programs), costs no round trip and holds
in the same transaction. Migrations make, compare and drop them with their functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from orm_core import peewee_facade as peewee
from orm_core.models.columns import quote_literal
from orm_core.models.fields.arrays import array_literal

#: the lock under which links are added to the chain: "ormc", "audi"
_LOCK: Final = f"{0x6F726D63}, {0x61756469}"
#: what a link of the chain covers, in one text that doesn't depend on the session's settings
CANONICAL: Final = """jsonb_build_array(
        {position}, {previous}, e.id, e.table_name, e.row_id, e.operation, e.old, e.new, e.masked,
        e.actor, e.role, e.request_id, e.transaction_id, e.started_at AT TIME ZONE 'UTC',
        e.recorded_at AT TIME ZONE 'UTC')::text"""

# Texts must not depend on who writes; SECURITY DEFINER wants a fixed search_path (PostgreSQL manual,
# "Writing SECURITY DEFINER Functions Safely").
_DEFINER: Final = """LANGUAGE plpgsql SECURITY DEFINER
SET search_path TO '' SET timezone TO 'UTC' SET datestyle TO 'ISO, YMD'
SET intervalstyle TO 'postgres' SET bytea_output TO 'hex' SET extra_float_digits TO '1'"""

_RECORD: Final = f"""
CREATE FUNCTION public.orm_core_audit() RETURNS trigger {_DEFINER} AS $function$
DECLARE
    keys CONSTANT text[] := TG_ARGV[0];
    secrets text[] := TG_ARGV[1];
    deleted CONSTANT text := TG_ARGV[2];
    told text := 'truncate';
    before jsonb;
    after jsonb;
    address text;
    hidden text[];
BEGIN
    IF TG_OP <> 'TRUNCATE' THEN
        IF TG_OP <> 'INSERT' THEN
            before := to_jsonb(OLD);
        END IF;
        IF TG_OP <> 'DELETE' THEN
            after := to_jsonb(NEW);
        END IF;
        IF cardinality(keys) = 1 THEN
            address := coalesce(before, after) ->> keys[1];
        ELSE
            SELECT jsonb_agg(coalesce(before, after) -> k ORDER BY n)::text INTO address
            FROM unnest(keys) WITH ORDINALITY AS _(k, n);
        END IF;
        told := CASE TG_OP WHEN 'INSERT' THEN 'insert' WHEN 'DELETE' THEN 'hard_delete'
                ELSE 'update' END;
        IF TG_OP = 'UPDATE' AND deleted <> '' THEN
            IF before -> deleted = 'null' AND after -> deleted <> 'null' THEN
                told := 'delete';
            ELSIF before -> deleted <> 'null' AND after -> deleted = 'null' THEN
                told := 'restore';
            END IF;
        END IF;
        IF cardinality(secrets) > 0 THEN
            -- While a column is renamed in stages, its values are in another one too.
            secrets := secrets || ARRAY(
                SELECT c.key FROM (VALUES (before), (after)) AS rows(r), jsonb_each(r) AS c
                WHERE c.key <> ALL (secrets) AND c.value <> 'null'
                  AND c.value = ANY (SELECT r -> s FROM unnest(secrets) AS s));
            SELECT array_agg(DISTINCT s) INTO hidden FROM unnest(secrets) AS s
            WHERE before ->> s IS DISTINCT FROM after ->> s;
            before := before - secrets;
            after := after - secrets;
        END IF;
        IF TG_OP = 'UPDATE' THEN
            -- As texts: to jsonb 1.0 and 1.00 are equal.
            SELECT coalesce(jsonb_object_agg(c.key, before -> c.key), '{{}}'),
                   coalesce(jsonb_object_agg(c.key, c.value), '{{}}')
            INTO before, after FROM jsonb_each(after) AS c
            WHERE c.value::text IS DISTINCT FROM (before -> c.key)::text;
        END IF;
    END IF;
    INSERT INTO public.audit_log
        (table_name, row_id, operation, old, new, masked, actor, role, request_id)
    VALUES (
        CASE TG_TABLE_SCHEMA WHEN 'public' THEN '' ELSE TG_TABLE_SCHEMA || '.' END || TG_TABLE_NAME,
        address, told, before, after, hidden,
        nullif(current_setting('orm_core.actor', true), ''), SESSION_USER,
        nullif(current_setting('orm_core.request_id', true), ''));
    RETURN NULL;
END
$function$"""

_GUARD: Final = """
CREATE FUNCTION public.orm_core_audit_guard() RETURNS trigger LANGUAGE plpgsql
SET search_path TO '' AS $function$
BEGIN
    -- Its owner prunes old entries and tells of it; the chain's trigger adds hashes to new ones.
    IF pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'MEMBER')
       AND (TG_OP = 'INSERT'
            OR TG_OP = 'DELETE' AND current_setting('orm_core.audit_prune', true) = 'on'
            OR TG_OP = 'UPDATE' AND pg_trigger_depth() > 1) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'The audit trail is not changed by hand: % is refused, orm-core audit prune '
        'takes old entries out.', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$function$"""

_LINK: Final = f"""UPDATE public.audit_log AS e
    SET position = place, previous_hash = previous, hash = encode(sha256(convert_to(
        {CANONICAL.format(position="place", previous="previous")}, 'UTF8')), 'hex')
    WHERE e.id = NEW.id;"""
_CHAIN: Final = f"""
CREATE FUNCTION public.orm_core_audit_chain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path TO '' AS $function$
DECLARE
    place bigint;
    previous text;
BEGIN
    -- Deferred to COMMIT, so writers take turns for that moment only.
    PERFORM pg_advisory_xact_lock({_LOCK});
    SELECT e.position, e.hash INTO place, previous FROM public.audit_log AS e
    WHERE e.position IS NOT NULL ORDER BY e.position DESC LIMIT 1;
    place := coalesce(place, 0) + 1;
    previous := coalesce(previous, '');
    IF current_setting('transaction_isolation') = 'read committed' THEN
    {_LINK}
    ELSE
        BEGIN
    {_LINK}
        EXCEPTION WHEN unique_violation THEN
            RAISE EXCEPTION 'Another transaction added to the audit trail; run this one again.'
                USING ERRCODE = 'serialization_failure';
        END;
    END IF;
    RETURN NULL;
END
$function$"""


class Function(NamedTuple):
    """A function of a trigger; nobody but its owner may use it for triggers of his own."""

    name: str
    create: str

    @property
    def sql(self) -> tuple[str, str]:
        """The statements that make it."""
        return self.create.strip(), f"REVOKE ALL ON FUNCTION public.{self.name}() FROM PUBLIC"


class Trigger(NamedTuple):
    """A trigger; ``sql`` makes it on a table whose function is there."""

    function: Function
    sql: str


RECORD: Final = Function("orm_core_audit", _RECORD)
GUARD: Final = Function("orm_core_audit_guard", _GUARD)
CHAIN: Final = Function("orm_core_audit_chain", _CHAIN)


def triggers(model: Any) -> Iterator[Trigger]:
    """The triggers that a model's table has: of an audited one, and of the trail itself."""
    meta = model._meta
    table = _table(meta)
    audit = getattr(meta, "audit", False)  # the metadata of a many-to-many's table is Peewee's
    if audit in ("trail", "chain"):
        each = f"ON {table} FOR EACH STATEMENT"
        yield _trigger(GUARD, f"BEFORE UPDATE OR DELETE OR TRUNCATE {each}")
        # Not where a trigger writes, which has the right: asking costs a fifth of an entry.
        by_hand = f"BEFORE INSERT {each} WHEN (pg_trigger_depth() = 0)"
        yield _trigger(GUARD, by_hand, suffix="_insert")
        if audit == "chain":
            yield _trigger(
                CHAIN,
                f"AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
                "CONSTRAINT ",
            )
    elif audit:
        given = _arguments(meta)
        what = f"AFTER {{}} ON {table} FOR EACH {{}}"
        yield _trigger(RECORD, what.format("INSERT OR DELETE", "ROW"), "", "", given)
        changed = what.format("UPDATE", "ROW WHEN (OLD.* *<> NEW.*)")
        yield _trigger(RECORD, changed, "", "_update", given)
        yield _trigger(RECORD, what.format("TRUNCATE", "STATEMENT"), "", "_truncate", given)


def _trigger(
    function: Function, what: str, kind: str = "", suffix: str = "", given: str = ""
) -> Trigger:
    name = f"{function.name}{suffix}"
    sql = f"CREATE {kind}TRIGGER {name} {what} EXECUTE FUNCTION public.{function.name}({given})"
    return Trigger(function, sql)


def _table(meta: Any) -> str:
    return ".".join(_quoted(part) for part in (meta.schema, meta.table_name) if part)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def _arguments(meta: Any) -> str:
    """The key's columns, those of secrets, and the one that marks soft-deleted rows."""
    keys = [one.column_name for one in meta.get_primary_keys()]
    secrets = [one.column_name for one in meta.sorted_fields if getattr(one, "secret", False)]
    soft = meta.fields.get("deleted_at")
    lists = [array_literal(keys), array_literal(secrets), soft.column_name if soft else ""]
    return ", ".join(map(quote_literal, lists))


def create_triggers(database: peewee.Database, models: Iterable[Any]) -> None:
    """Make what the models' tables, which are there, have of triggers."""
    wanted = [trigger for model in models for trigger in triggers(model)]
    for function in dict.fromkeys(trigger.function for trigger in wanted):
        for sql in function.sql:
            database.execute_sql(sql.replace("%", "%%"))
    for trigger in wanted:
        database.execute_sql(trigger.sql)
