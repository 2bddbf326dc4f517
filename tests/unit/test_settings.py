"""Settings: arguments over the environment over ``.env``; and the database they point at."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from orm_core import ConfigurationError, Settings, db, initialize_db
from orm_core.database.pool_stats import PoolStats
from orm_core.settings import VARIABLES, load

SECRET = "tr0ub4dor-and-3"
URL = "postgresql://ada:pw@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def clean_surroundings(monkeypatch, tmp_path):
    for _, variable, _ in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    db.init(None)


def test_every_setting_has_one_variable():
    names = [name for name, _, _ in VARIABLES]
    assert names == [field.name for field in fields(Settings)]
    assert len({variable for _, variable, _ in VARIABLES}) == len(names)


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("DATABASE_URL", URL, "url", URL),
        ("ORM_CORE_SSL_MODE", "require", "ssl_mode", "require"),
        ("ORM_CORE_SSL_ROOT_CERT", "/r.pem", "ssl_root_cert", "/r.pem"),
        ("ORM_CORE_POOL_SIZE", "7", "pool_size", 7),
        ("ORM_CORE_POOL_TIMEOUT", "0.5", "pool_timeout", 0.5),
        ("ORM_CORE_CONNECT_TIMEOUT", "3", "connect_timeout", 3),
        ("ORM_CORE_STATEMENT_TIMEOUT", "1.5", "statement_timeout", 1.5),
        ("ORM_CORE_TOKEN_KEYS", "a:00", "token_keys", "a:00"),
        ("ORM_CORE_MIGRATIONS_DIR", "m", "migrations_dir", Path("m")),
        ("ORM_CORE_EMBEDDED_DIR", "e", "embedded_dir", Path("e")),
    ],
)
def test_a_variable_sets_its_setting(variable, text, name, value, monkeypatch):
    monkeypatch.setenv(variable, f" {text} ")
    assert getattr(load(), name) == value


def test_nothing_set_leaves_the_defaults():
    assert load() == Settings()


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_variable_counts_as_not_given(text):
    assert load(environ={"ORM_CORE_POOL_SIZE": text}) == Settings()


def test_a_dotenv_file_in_the_working_directory_is_read():
    Path(".env").write_text(
        '# local\nexport DATABASE_URL="postgresql:///a"\nORM_CORE_POOL_SIZE=3\n'
    )
    settings = load()
    assert (settings.url, settings.pool_size) == ("postgresql:///a", 3)


def test_a_dotenv_file_is_not_exported(monkeypatch):
    Path(".env").write_text("ORM_CORE_POOL_SIZE=3\n")
    load()
    Path(".env").unlink()
    assert load().pool_size == Settings().pool_size


def test_the_environment_goes_before_the_dotenv_file(monkeypatch):
    Path(".env").write_text("ORM_CORE_POOL_SIZE=3\n")
    monkeypatch.setenv("ORM_CORE_POOL_SIZE", "4")
    assert load().pool_size == 4


def test_an_argument_goes_before_both(monkeypatch):
    Path(".env").write_text("ORM_CORE_POOL_SIZE=3\n")
    monkeypatch.setenv("ORM_CORE_POOL_SIZE", "4")
    assert load({"pool_size": 5}).pool_size == 5


def test_an_argument_of_none_counts_as_not_given(monkeypatch):
    monkeypatch.setenv("ORM_CORE_POOL_SIZE", "4")
    assert load({"pool_size": None}).pool_size == 4


def test_a_dotenv_file_that_is_not_utf8_is_a_configuration_error():
    Path(".env").write_bytes(f"DATABASE_URL=postgresql://u:{SECRET}\xe9@h/d\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"\.env") as caught:
        load()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ORM_CORE_POOL_SIZE", "many"),
        ("ORM_CORE_POOL_SIZE", "2.5"),
        ("ORM_CORE_POOL_SIZE", "0"),
        ("ORM_CORE_POOL_SIZE", "-1"),
        ("ORM_CORE_POOL_TIMEOUT", "soon"),
        ("ORM_CORE_POOL_TIMEOUT", "0"),
        ("ORM_CORE_POOL_TIMEOUT", "-1"),
        ("ORM_CORE_POOL_TIMEOUT", "nan"),
        ("ORM_CORE_POOL_TIMEOUT", "inf"),
        ("ORM_CORE_CONNECT_TIMEOUT", "1.5"),
        ("ORM_CORE_CONNECT_TIMEOUT", "0"),
        ("ORM_CORE_STATEMENT_TIMEOUT", "-1"),
        ("ORM_CORE_LOCK_TIMEOUT", "nan"),
        ("ORM_CORE_IDLE_IN_TRANSACTION_TIMEOUT", "3000000"),
        ("ORM_CORE_POOL_MAX_LIFETIME", "-1"),
        ("ORM_CORE_POOL_RESET", "truncate"),
        ("ORM_CORE_POOL_DEBUG", "maybe"),
        ("ORM_CORE_STATEMENT_TIMEOUT", "inf"),
        ("ORM_CORE_SSL_MODE", "sure"),
    ],
)
def test_a_malformed_variable_is_named(variable, text, monkeypatch):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError, match=variable):
        load()


@pytest.mark.parametrize("variable", ["ORM_CORE_POOL_SIZE", "ORM_CORE_SSL_MODE"])
def test_the_value_of_a_malformed_variable_is_not_repeated(variable, monkeypatch):
    monkeypatch.setenv(variable, SECRET)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


def test_settings_do_not_show_their_secrets():
    settings = Settings(url=f"postgresql://u:{SECRET}@h/d", token_keys=SECRET)
    assert SECRET not in f"{settings} {settings!r}"


@pytest.mark.parametrize("needed", ["initialize_db(url)", "DATABASE_URL", ".env", "orm-core db"])
def test_without_a_url_the_error_names_each_way_to_give_one(needed):
    with pytest.raises(ConfigurationError) as caught:
        initialize_db()
    assert needed in str(caught.value)


def test_a_query_before_initialize_db_says_so():
    db.init(None)
    with pytest.raises(ConfigurationError, match="initialize_db"):
        db.execute_sql("SELECT 1")


@pytest.mark.parametrize("source", ["argument", "environment", "dotenv"])
def test_the_url_may_come_from_anywhere(source, monkeypatch):
    if source == "dotenv":
        Path(".env").write_text(f"DATABASE_URL={URL}\n")
    if source == "environment":
        Path(".env").write_text("DATABASE_URL=postgresql:///wrong\n")
        monkeypatch.setenv("DATABASE_URL", URL)
    if source == "argument":
        monkeypatch.setenv("DATABASE_URL", "postgresql:///wrong")
    initialize_db(URL if source == "argument" else None)
    assert (db.database, db.connect_params["user"]) == ("shop", "ada")


def test_initialize_db_opens_no_connection():
    initialize_db(URL)
    assert db.pool_stats() == PoolStats(10, 0, 0, 0)


@pytest.mark.parametrize(
    ("url", "variable", "argument", "mode"),
    [
        ("postgresql://h/d", None, None, "verify-full"),
        ("postgresql://127.0.0.1/d", None, None, "prefer"),
        ("postgresql://127.0.0.1/d", None, True, "verify-full"),
        ("postgresql://h/d?sslmode=require", None, None, "require"),
        ("postgresql://h/d", "verify-ca", None, "verify-ca"),
        ("postgresql://h/d?sslmode=require", "verify-ca", False, "disable"),
        ("postgresql://h/d", "disable", True, "verify-full"),
    ],
)
def test_tls_is_verified_elsewhere_unless_something_else_is_asked_for(
    url, variable, argument, mode, monkeypatch
):
    if variable:
        monkeypatch.setenv("ORM_CORE_SSL_MODE", variable)
    initialize_db(url, ssl=argument)
    assert db.connect_params["sslmode"] == mode


def test_the_root_certificate_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ORM_CORE_SSL_ROOT_CERT", "/roots.pem")
    initialize_db("postgresql://h/d")
    assert db.connect_params["sslrootcert"] == "/roots.pem"


def test_an_argument_goes_before_an_option_of_the_url():
    initialize_db(f"{URL}?connect_timeout=9&sslrootcert=/url.pem", connect_timeout=3)
    assert db.connect_params["connect_timeout"] == 3


def test_an_option_of_the_url_goes_before_the_default():
    initialize_db(f"{URL}?connect_timeout=9")
    assert int(db.connect_params["connect_timeout"]) == 9


def test_the_statement_timeout_joins_the_urls_options():
    initialize_db(f"{URL}?options=-c%20lock_timeout%3D5s", statement_timeout=1.5)
    assert db.startup_params()["options"].split(" -c ") == [
        "-c datestyle=ISO",
        "statement_timeout=1500",
        "idle_in_transaction_session_timeout=60000",
        "lock_timeout=5s",
        "timezone=UTC",
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"pool_size": 0},
        {"pool_size": "ten"},
        {"pool_size": 2.5},
        {"pool_timeout": -1},
        {"pool_timeout": "soon"},
        {"connect_timeout": 0},
        {"statement_timeout": -1},
        {"ssl": "sure"},
    ],
)
def test_a_malformed_argument_is_named(given):
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        initialize_db(URL, **given)


@pytest.mark.parametrize("option", ["schema=public", "ssl=true", "connect_timeout=soon"])
def test_an_option_that_libpq_can_not_read_is_refused_by_its_name(option):
    with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
        initialize_db(f"{URL}?{option}")


def test_a_refused_url_leaves_the_database_as_it_was():
    initialize_db(URL)
    with pytest.raises(ConfigurationError):
        initialize_db("postgresql://h/")
    assert db.database == "shop"
