"""Domain notes: creates its table."""


def migrate(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '5s'")
    migrator.sql("""
        CREATE TABLE notes (
            id uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
            text text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            deleted_at timestamptz
        )
    """)


def rollback(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '5s'")
    migrator.sql("DROP TABLE notes")
