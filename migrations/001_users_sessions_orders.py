"""Domains users and orders: creates users, sessions and orders, and the enums of sessions."""


def migrate(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '5s'")
    migrator.sql("CREATE TYPE session_provider AS ENUM ('google')")
    migrator.sql("CREATE TYPE session_status AS ENUM ('active', 'expired', 'revoked')")
    migrator.sql("""
        CREATE TABLE users (
            id uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
            email text NOT NULL,
            first_name text NOT NULL,
            last_name text,
            avatar text,
            provider_account_id text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            deleted_at timestamptz
        )
    """)
    migrator.sql("""
        CREATE UNIQUE INDEX users_email_key ON users (email) WHERE deleted_at IS NULL
    """)
    migrator.sql("""
        CREATE UNIQUE INDEX users_provider_account_id_key ON users (provider_account_id)
        WHERE deleted_at IS NULL
    """)
    migrator.sql("""
        CREATE TABLE sessions (
            id uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
            user_id uuid NOT NULL,
            status session_status NOT NULL DEFAULT 'active',
            provider session_provider NOT NULL,
            provider_access_token varchar(2048) NOT NULL,
            provider_access_token_iv varchar(32) NOT NULL,
            provider_access_token_tag varchar(32) NOT NULL,
            provider_access_token_expires_at timestamptz,
            provider_refresh_token varchar(2048),
            provider_refresh_token_iv varchar(32),
            provider_refresh_token_tag varchar(32),
            provider_refresh_token_expires_at timestamptz,
            provider_account_id varchar(255) NOT NULL,
            provider_scope text,
            expires_at timestamptz NOT NULL,
            last_accessed_at timestamptz,
            metadata jsonb DEFAULT '{}'::jsonb,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            deleted_at timestamptz,
            CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id)
        )
    """)
    migrator.sql("CREATE INDEX sessions_user_id_idx ON sessions (user_id)")
    migrator.sql("""
        CREATE TABLE orders (
            id uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
            user_id uuid NOT NULL,
            status text NOT NULL DEFAULT 'pending',
            total integer NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            deleted_at timestamptz,
            CONSTRAINT orders_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id)
        )
    """)
    migrator.sql("CREATE INDEX orders_user_id_idx ON orders (user_id)")


def rollback(migrator, database, *, fake=False):
    migrator.sql("SET LOCAL lock_timeout = '5s'")
    migrator.sql("DROP TABLE orders")
    migrator.sql("DROP TABLE sessions")
    migrator.sql("DROP TABLE users")
    migrator.sql("DROP TYPE session_status")
    migrator.sql("DROP TYPE session_provider")
