"""The query box: what runs, what does not, and what stays in the database."""

import pytest
from service_helpers import new_session, new_user
from studio_helpers import HOME, words

from domains.users import User
from orm_core import db
from orm_core.studio import querybox


def run(query, sql, action="run"):
    return query.post("/-/sql", {"sql": sql, "action": action})


def test_a_select_is_answered(query):
    user = new_user(last_name=None, avatar="")
    page = run(query, f"SELECT email, last_name, avatar FROM users WHERE id = '{user.id}';")
    assert page.status_code == 200
    assert "1 row in" in words(page)
    assert f"{user.email} NULL empty text" in words(page)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
        "VALUES (1), (2)",
        "TABLE users",
        "(SELECT 1) UNION (SELECT 2)",
        "SELECT '100%' LIKE '%0\\%', 'a;b', $$ ; $$",
        "SELECT 1 -- a comment",
        "SELECT count(*) FROM sessions",
        "SELECT id, provider_access_token IS NOT NULL AS has FROM sessions",
        "SELECT id FROM sessions WHERE provider_refresh_token IS NULL",
        "SELECT u.email, s.status FROM sessions s JOIN users u ON u.id = s.user_id",
        "SELECT status, count(*) FROM sessions GROUP BY 1 ORDER BY 2",
        "SELECT '\\x00'::bytea, now(), array[1,2], '{\"a\": 1}'::jsonb",
    ],
)
def test_every_kind_of_question_is_answered(query, sql):
    new_session()
    for action in ("run", "explain"):
        page = run(query, sql, action)
        assert page.status_code == 200, words(page)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM users",
        "INSERT INTO users (email, first_name, provider_account_id) VALUES ('a', 'b', 'c')",
        "WITH gone AS (DELETE FROM users RETURNING id) SELECT * FROM gone",
        "SELECT 1; DELETE FROM users",
        "SELECT 1; COMMIT; DELETE FROM users",
        "COMMIT; DELETE FROM users; BEGIN",
        "DROP TABLE users",
        "TRUNCATE users CASCADE",
        "COPY users TO PROGRAM 'id'",
        "COPY users TO STDOUT",
        "SET default_transaction_read_only = off",
        "SET TRANSACTION READ WRITE",
        "BEGIN",
        "ROLLBACK",
        "DO $$ BEGIN DELETE FROM users; END $$",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT nextval('studio_stamps_id_seq')",
        "CREATE TEMP TABLE t AS SELECT 1",
        "LISTEN x",
        "VACUUM",
        "SELECT * FROM users FOR UPDATE",
        "SELECT lo_create(0)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT query_to_xml('SELECT * FROM sessions', true, true, '')",
        "EXPLAIN DELETE FROM users",
        "",
        "  ;  ",
        "SELECT nope FROM users",
        "SELECT 1/0",
        "SELECT '\0'",
        "SELECT 1 -- " + "x" * 20_001,
    ],
)
def test_what_would_change_something_is_refused(query, sql):
    user = new_user()
    for action in ("run", "explain"):
        page = run(query, sql, action)
        assert page.status_code in (400, 504), words(page)
    assert User.select().where(User.id == user.id).exists()
    assert "root:" not in words(page)


def test_nothing_of_a_query_stays(query):
    run(query, "SELECT set_config('statement_timeout', '0', false)")
    run(query, "SELECT set_config('default_transaction_read_only', 'off', false)")
    page = run(query, "SELECT current_setting('statement_timeout') || '/' || "
               "current_setting('default_transaction_read_only') AS x")  # fmt: skip
    assert "5s/on" in words(page)


SECRET_QUERIES = [
    "SELECT * FROM sessions",
    "TABLE sessions",
    "SELECT provider_access_token FROM sessions",
    "SELECT provider_access_token_iv FROM sessions",
    "SELECT provider_access_token_tag AS harmless FROM sessions",
    'SELECT "provider_access_token" FROM sessions',
    'SELECT U&"provider\\005Faccess_token" FROM sessions',
    "SELECT upper(s.provider_access_token) FROM sessions AS s",
    "SELECT s FROM sessions AS s",
    "SELECT row_to_json(s) FROM sessions AS s",
    "SELECT to_jsonb(s) ->> 'provider_access_token' FROM sessions AS s",
    "SELECT s.* FROM users u JOIN sessions s ON s.user_id = u.id",
    "SELECT length(provider_access_token) FROM sessions",
    "SELECT 1 FROM sessions WHERE provider_access_token LIKE 'a%'",
    "SELECT id FROM sessions ORDER BY provider_access_token",
    "SELECT count(DISTINCT provider_access_token) FROM sessions",
    "SELECT max(x) FROM (SELECT provider_access_token AS x FROM sessions) AS a",
    "SELECT x FROM (SELECT provider_access_token AS x FROM sessions OFFSET 0) AS a",
    "WITH a AS MATERIALIZED (SELECT provider_access_token AS x FROM sessions) SELECT x FROM a",
    "SELECT (SELECT provider_access_token FROM sessions LIMIT 1)",
    "SELECT string_agg(provider_access_token, ',') FROM sessions",
    "SELECT email FROM users UNION ALL SELECT provider_access_token FROM sessions",
    "SELECT email FROM users UNION SELECT provider_access_token FROM sessions",
    "SELECT email FROM users EXCEPT SELECT provider_access_token FROM sessions",
    "SELECT a.email FROM users a JOIN sessions b ON b.provider_access_token = a.email",
    "SELECT unnest(array[provider_access_token]) FROM sessions",
    "SELECT x FROM sessions, LATERAL (SELECT provider_access_token AS x) AS b",
    "SELECT first_value(provider_access_token) OVER () FROM sessions",
    "SELECT count(*) FROM sessions GROUP BY provider_access_token",
    "SELECT provider_access_token IS NULL OR provider_access_token > 'a' FROM sessions",
    "SELECT CASE WHEN provider_access_token < 'b' THEN 1 END FROM sessions",
    "SELECT x FROM studio_secret_view",
    "SELECT most_common_vals FROM pg_stats WHERE tablename = 'sessions'",
    "SELECT stavalues1 FROM pg_statistic",
    "SELECT b FROM sessions s(a, b, c, d, e)",
]


@pytest.fixture
def session(studio_db):
    db.execute_sql(
        "CREATE OR REPLACE VIEW studio_secret_view AS SELECT provider_access_token AS x FROM sessions"
    )
    return new_session()


@pytest.mark.parametrize("sql", SECRET_QUERIES)
def test_a_query_that_reads_a_secret_is_refused_however_it_is_put(query, session, sql):
    parts = db.execute_sql(
        "SELECT provider_access_token, provider_access_token_iv, provider_access_token_tag "
        "FROM sessions"
    ).fetchall()
    for action in ("run", "explain"):
        page = run(query, sql, action)
        text = page.get_data(as_text=True)
        assert page.status_code == 400 or sql.startswith("SELECT b FROM"), words(page)
        assert not [part for row in parts for part in row if part in text]


def test_what_a_scan_hands_on_as_it_is_counts_as_read():
    scan = {
        "Node Type": "Seq Scan",
        "Relation Name": "sessions",
        "Parent Relationship": "Inner",
        "Output": ["sessions.provider_access_token"],
    }
    for kind, listed in (("SetOp", True), ("Append", True), ("Hash Join", False)):
        parent = {"Node Type": kind, "Plans": [scan]}
        texts = list(querybox._expressions(scan, parent))
        assert ("sessions.provider_access_token" in texts) is listed


def test_a_query_that_takes_too_long_is_ended(query, monkeypatch):
    monkeypatch.setattr(querybox, "TIME_LIMIT", 0.1)
    page = run(query, "SELECT pg_sleep(30)")
    assert page.status_code == 504
    assert "ended the query" in words(page)


def test_rows_are_capped_and_long_values_cut(query):
    page = run(query, "SELECT g, repeat('x', 10000) FROM generate_series(1, 1000000) AS g")
    assert page.status_code == 200
    assert "500+ rows" in words(page)
    assert "x" * (querybox.MAX_CELL + 1) not in page.get_data(as_text=True)


def test_a_plan_is_shown_as_a_tree_with_what_each_step_took(query):
    new_session()
    page = run(query, "SELECT u.email FROM users u JOIN sessions s ON s.user_id = u.id ORDER BY 1",
               "explain")  # fmt: skip
    text = page.get_data(as_text=True)
    assert 'class="depth-0"' in text
    assert 'class="depth-2"' in text
    assert "Sort by u.email" in words(page)


def test_queries_are_remembered_until_the_studio_ends(query):
    run(query, "SELECT 'first'")
    run(query, "SELECT 'second'")
    run(query, "SELECT 'first'")
    assert query.studio.box.history == ["SELECT 'first'", "SELECT 'second'"]
    assert "SELECT 'second'" in words(query.get("/-/sql"))


def test_what_a_query_says_is_in_no_log_of_slow_queries(query, monkeypatch):
    from orm_core.studio import slow

    monkeypatch.setattr(slow, "SLOW", 0.0)
    run(query, "SELECT 'a value that somebody typed'")
    run(query, "SELECT pg_sleep(0.01)")
    assert not [one for one in query.studio.slow.slowest() if "typed" in one.sql]


def test_a_query_of_another_site_is_not_run(query):
    answer = query.client.post(
        "/-/sql",
        base_url=HOME,
        data={"sql": "SELECT 1"},
        headers={"Origin": "https://evil.example"},
    )
    assert answer.status_code == 403
    assert query.studio.box.history == []
