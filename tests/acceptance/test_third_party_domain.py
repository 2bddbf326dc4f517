"""A service with a domain from an installed package of somebody's, in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
import uuid
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql

from orm_core.database.url import parse

ROOT = Path(__file__).parents[2]

PACKAGE = """
    from orm_core import BaseModel, Domain, ForeignKeyField, IntegerField, Service, finder
    from domains.users import User


    class Invoice(BaseModel):
        user = ForeignKeyField(User, backref="invoices")
        number = IntegerField(unique="live")

        class Meta:
            table_name = "invoices"


    class InvoicesService(Service[Invoice]):
        find_by_number = finder(Invoice.number)


    domain = Domain("billing", models=(Invoice,), services=(InvoicesService,))
"""
MIGRATION = '''
    def migrate(migrator, database, *, fake=False):
        migrator.sql("SET LOCAL lock_timeout = '5s'")
        migrator.sql("""
            CREATE TABLE invoices (
                id uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
                user_id uuid NOT NULL,
                number integer NOT NULL,
                created_at timestamptz NOT NULL DEFAULT now(),
                updated_at timestamptz NOT NULL DEFAULT now(),
                deleted_at timestamptz,
                CONSTRAINT invoices_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id)
            )
        """)
        migrator.sql("CREATE INDEX invoices_user_id_idx ON invoices (user_id)")
        migrator.sql(
            "CREATE UNIQUE INDEX invoices_number_key ON invoices (number) WHERE deleted_at IS NULL"
        )


    def rollback(migrator, database, *, fake=False):
        migrator.sql("DROP TABLE invoices")
'''
SERVICE = """
    import json
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from acme_billing import InvoicesService
    from domains.users import UsersService
    from orm_core import OrmCoreError, connect_db, db, initialize_db, registry, transaction
    from orm_core.metrics import text

    registry.discover()
    initialize_db()
    connect_db()
    registry.router(db).run()


    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/metrics":
                return self.answer(200, text())
            invoice = InvoicesService.find_by_number(int(self.path.rpartition("/")[2]))
            found = invoice and {"number": invoice.number, "user": invoice.user.email}
            return self.answer(200 if found else 404, json.dumps(found))

        def do_POST(self):
            data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                with db.connection_context(), transaction() as tx:
                    user = UsersService.create(data["user"], tx=tx)
                    invoice = InvoicesService.create({"user": user, **data["invoice"]}, tx=tx)
            except OrmCoreError as error:
                return self.answer(400, json.dumps({"error": type(error).__name__}))
            return self.answer(201, json.dumps({"id": str(invoice.id)}))

        def answer(self, status, body):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass


    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(json.dumps({"port": server.server_port, "tables": registry.tables}), flush=True)
    server.serve_forever()
"""


@pytest.fixture(scope="module")
def database(orm_core_server):
    """The URL of an empty database."""
    name = f"orm_core_{os.getpid()}_third_party"
    params = parse(orm_core_server.url("postgres")).connect_params()

    def execute(text):
        with closing(psycopg2.connect(**params)) as link:
            link.autocommit = True
            link.cursor().execute(sql.SQL(text).format(sql.Identifier(name)))

    execute("CREATE DATABASE {}")
    yield orm_core_server.url(name)
    execute("DROP DATABASE {} WITH (FORCE)")


@pytest.fixture(scope="module")
def service(database, tmp_path_factory):
    """The running service; answers the address and the tables that it knows."""
    folder = tmp_path_factory.mktemp("service")
    installed = folder / "site-packages"
    info = installed / "acme_billing-1.0.dist-info"
    write(installed / "acme_billing/__init__.py", PACKAGE)
    write(info / "METADATA", "Metadata-Version: 2.1\nName: acme-billing\nVersion: 1.0\n")
    write(info / "entry_points.txt", "[orm_core.domains]\nbilling = acme_billing:domain\n")
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    write(folder / "migrations/900_billing.py", MIGRATION)
    write(folder / "service.py", SERVICE)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "service.py"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]),
            "DATABASE_URL": database,
        },
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            started = json.loads(process.stdout.readline())
            yield f"http://127.0.0.1:{started['port']}", started["tables"]
        finally:
            process.terminate()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


@pytest.fixture
def ask(service):
    """GET, or POST with a body; answers the status and the body."""

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(service[0] + path, data)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return ask


def person():
    name = uuid.uuid4().hex
    return {"email": f"{name}@example.com", "first_name": name, "provider_account_id": name}


def counted(text, operation, table):
    start = f'db_queries_total{{operation="{operation}",table="{table}"}} '
    found = [line for line in text.splitlines() if line.startswith(start)]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def test_the_packages_domain_is_discovered_beside_ours(service):
    assert sorted(service[1]) == ["invoices", "orders", "sessions", "users"]


def test_the_services_own_migrations_are_applied_after_ours(service, database):
    with closing(psycopg2.connect(database)) as link, link.cursor() as cursor:
        cursor.execute("SELECT name FROM migratehistory ORDER BY id")
        names = [name for (name,) in cursor]
    assert names[0].startswith("001_")
    assert names[-1] == "900_billing"


def test_rows_of_both_domains_are_written_in_one_transaction(ask):
    user = person()
    status, _ = ask("/invoices", {"user": user, "invoice": {"number": 1}})
    assert status == 201
    assert ask("/invoices/1") == (200, json.dumps({"number": 1, "user": user["email"]}))


def test_nothing_is_found_where_nothing_is(ask):
    assert ask("/invoices/404") == (404, "null")


def test_a_refused_invoice_takes_its_user_back(ask):
    user = person()
    for invoice in ({"number": 2}, {"number": 2}):
        last = ask("/invoices", {"user": person(), "invoice": invoice})
    assert last == (400, json.dumps({"error": "DuplicateKey"}))
    refused = ask("/invoices", {"user": user, "invoice": {"number": "three"}})
    assert refused == (400, json.dumps({"error": "InvalidValue"}))
    assert ask("/invoices", {"user": user, "invoice": {"number": 3}})[0] == 201


def test_the_metrics_page_counts_the_packages_table(ask):
    before = ask("/metrics")[1]
    ask("/invoices", {"user": person(), "invoice": {"number": 4}})
    after = ask("/metrics")[1]
    for table in ("invoices", "users"):
        assert counted(after, "insert", table) == counted(before, "insert", table) + 1
    assert "db_connection_pool_size" in after
