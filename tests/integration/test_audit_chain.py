"""The chain over the trail: what was done to it is found; pruning is told from theft."""

import threading
from datetime import timedelta

import pytest
from auditing import ItemsService, audited, entries
from click.testing import CliRunner

from orm_core import InvalidValue, QueryError, SerializationFailure, acting_as, transaction
from orm_core.audit.chain import Head, verify
from orm_core.audit.pruning import prune
from orm_core.cli.main import main


@pytest.fixture
def trail(clone_db):
    with audited("chain"):
        yield clone_db


def write(count, name="x"):
    for number in range(count):
        ItemsService.create({"name": f"{name}{number}"})


def tamper(database, sql):
    """As somebody who owns the table, and may switch its triggers off."""
    with database.atomic():
        database.execute_sql("SET LOCAL session_replication_role = replica")
        database.execute_sql(sql)


def test_a_chain_that_nobody_touched_is_whole(trail):
    with transaction():
        write(3)
    write(2)
    found = verify()
    last = entries()[-1]
    assert (found.problem, found.entries, found.unlinked) == (None, 5, 0)
    assert found.head == Head(5, last.hash) == Head.read(str(found.head))
    assert verify(found.head).problem is None


TAMPERED = {
    "UPDATE audit_log SET actor = 'somebody else' WHERE position = 3": "position 3 is not as it",
    "UPDATE audit_log SET new = new || '{\"name\": \"y\"}' WHERE position = 2": "position 2 is not",
    "UPDATE audit_log SET recorded_at = recorded_at - interval '1 us' WHERE position = 4":
        "position 4 is not",
    "DELETE FROM audit_log WHERE position = 3": "position 4 follows position 2",
    "DELETE FROM audit_log WHERE position <= 2": "position 3 is the first",
    "UPDATE audit_log SET position = 9 WHERE position = 2; "
    "UPDATE audit_log SET position = 2 WHERE position = 3; "
    "UPDATE audit_log SET position = 3 WHERE position = 9": "position 2 does not follow",
    "INSERT INTO audit_log (table_name, operation) VALUES ('audited_items', 'update')":
        "in no place of the chain",
    "INSERT INTO audit_log (table_name, operation, position, previous_hash, hash) "
    "SELECT 'a', 'update', 6, hash, hash FROM audit_log WHERE position = 5":
        "position 6 is not as it",
    "UPDATE audit_log SET position = NULL": "No entry is in a chain",
}  # fmt: skip


@pytest.mark.parametrize("sql", TAMPERED)
def test_the_first_entry_that_was_tampered_with_is_told(trail, sql):
    write(5)
    tamper(trail, sql)
    assert TAMPERED[sql] in verify().problem


def test_an_end_that_was_cut_off_is_found_by_a_recorded_head(trail):
    write(4)
    head = verify().head
    tamper(trail, "DELETE FROM audit_log WHERE position > 2")
    assert verify().problem is None
    assert "its end was removed" in verify(head).problem
    write(2, "again")
    assert "another hash than the recorded head" in verify(head).problem


@pytest.mark.parametrize("text", ["", "1", "1:ab", "x:" + "0" * 64, "1:" + "0" * 64 + "\n"])
def test_a_head_that_is_none_is_refused(text):
    with pytest.raises(InvalidValue, match="POSITION:HASH"):
        Head.read(text)


def test_writers_at_once_make_one_chain(trail):
    failures = []

    def work(name):
        try:
            for number in range(8):
                with transaction():
                    ItemsService.create({"name": f"{name}{number}"})
                    ItemsService.update_where({"name": f"{name}{number}"}, {"count": number})
        except Exception as error:  # told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (verify().problem, verify().entries) == (None, 64)


def test_a_transaction_that_can_not_see_the_head_is_to_be_run_again(trail):
    write(1)

    def beside():
        write(1, "beside")

    thread = threading.Thread(target=beside)

    def late():
        trail.execute_sql("SELECT 1")
        thread.start()
        thread.join()
        write(1, "late")

    with pytest.raises(SerializationFailure), transaction("repeatable read"):
        late()
    with transaction("repeatable read"):
        write(1, "again")
    assert (verify().problem, verify().entries) == (None, 3)


# -- pruning ------------------------------------------------------------------------------------


def age(database, days, where):
    """Entries as if they had been written days ago; their hashes with it."""
    tamper(
        database,
        f"UPDATE audit_log SET recorded_at = recorded_at - interval '{days} days', "
        f"position = NULL, hash = NULL, previous_hash = NULL WHERE {where}",
    )
    tamper(database, "UPDATE audit_log SET position = NULL, hash = NULL, previous_hash = NULL")
    relink(database)


def relink(database):
    """What the chain's trigger does, for entries that are there."""
    with database.atomic():
        database.execute_sql("CREATE TEMPORARY TABLE kept ON COMMIT DROP AS TABLE audit_log")
        database.execute_sql("SET LOCAL session_replication_role = replica")
        database.execute_sql("DELETE FROM audit_log")
        database.execute_sql("SET LOCAL session_replication_role = origin")
        database.execute_sql("INSERT INTO audit_log SELECT * FROM kept ORDER BY id")


def test_pruning_from_the_beginning_leaves_a_chain_that_is_whole(trail):
    write(9)
    age(trail, 500, "id <= 6")
    assert verify().problem is None
    assert prune(timedelta(days=400), dry_run=True) == 6
    assert len(entries()) == 9
    with acting_as("job:prune"):
        assert prune(timedelta(days=400), batch=4) == 6
    found = entries()
    assert [entry.position for entry in found] == [7, 8, 9, 10, 11]
    assert [entry.operation for entry in found[3:]] == ["prune", "prune"]
    assert (found[-1].actor, found[-1].new["entries"]) == ("job:prune", 2)
    assert verify().problem is None
    assert prune(timedelta(days=400)) == 0
    tamper(trail, "DELETE FROM audit_log WHERE position = 7")
    assert "position 8 is the first" in verify().problem


def test_the_newest_entry_of_a_chain_stays(trail):
    write(3)
    age(trail, 500, "true")
    assert prune(timedelta(days=400)) == 2
    write(1, "later")
    assert [entry.position for entry in entries()] == [3, 4, 5]
    assert verify().problem is None


def test_a_trail_without_a_chain_is_pruned_too(clone_db):
    with audited():
        write(5)
        tamper(
            clone_db, "UPDATE audit_log SET recorded_at = now() - interval '9 days' WHERE id <= 3"
        )
        assert prune(timedelta(days=1), batch=2) == 3
        assert [entry.operation for entry in entries()] == ["insert"] * 2 + ["prune"] * 2


@pytest.mark.parametrize("given", [{"older_than": timedelta(0)}, {"batch": 0}])
def test_pruning_without_an_age_or_a_batch_is_refused(given):
    with pytest.raises(InvalidValue, match="Pruning takes"):
        prune(**{"older_than": timedelta(days=1), **given})


def test_a_role_that_does_not_own_the_trail_can_not_prune_it(trail):
    write(2)
    trail.execute_sql("CREATE ROLE audit_pruner")
    try:
        trail.execute_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO audit_pruner")
        with trail.connection_context():
            trail.execute_sql("SET ROLE audit_pruner")
            with pytest.raises(QueryError):
                prune(timedelta(microseconds=1))
            trail.execute_sql("RESET ROLE")
    finally:
        trail.execute_sql("DROP OWNED BY audit_pruner")
        trail.execute_sql("DROP ROLE audit_pruner")
    assert verify().entries == 2


# -- the commands -------------------------------------------------------------------------------


@pytest.fixture
def run(trail, orm_core_server):
    url = orm_core_server.url(trail.database)

    def run(*words):
        done = CliRunner().invoke(main, ["audit", *words, "--url", url])
        return done.exit_code, done.stdout, done.stderr

    with acting_as("user:42", request_id="r1"):
        item = ItemsService.create({"name": "one"})
        ItemsService.update(item.id, {"name": "two\x1b[31m"})
    run.item = item
    return run


def test_show_tells_a_row_in_words(run):
    code, out, err = run("show", "audited_items", str(run.item.id))
    assert (code, err) == (0, "")
    first, *rest = out.splitlines()
    assert f"  update  audited_items {run.item.id}  by user:42 (request r1)" in first
    assert '    name: "one" -> "two\\u001b[31m"' in rest
    code, out, err = run("show", "audited_items", "--limit", "1")
    assert (out.count("audited_items"), err) == (1, "There are more than 1; --limit shows them.\n")
    assert run("show", "nowhere")[1] == "The audit trail has no such entry.\n"
    assert run("show", "audited_items", "--actor", "user:1", "--json") == (0, "", "")
    assert run("show", "audited_items", "--since", "2999-01-01", "--json") == (0, "", "")


def test_show_tells_a_row_as_json(run):
    import json

    code, out, _ = run("show", "audited_items", "--json")
    update, insert = map(json.loads, out.splitlines())
    assert (code, update["operation"], insert["operation"]) == (0, "update", "insert")
    assert update["old"]["name"] == "one"
    assert update["actor"] == "user:42"


def test_verify_prints_a_head_and_exits_1_for_a_problem(run, trail):
    code, out, _ = run("verify")
    head = out.splitlines()[1].removeprefix("Head: ")
    assert (code, out.splitlines()[0]) == (0, "2 entries are as they were written.")
    assert run("verify", "--head", head)[0] == 0
    tamper(trail, "DELETE FROM audit_log WHERE position = 2")
    code, _, err = run("verify", "--head", head)
    assert (code, "its end was removed" in err) == (1, True)


def test_prune_counts_first_and_wants_an_age(run, trail):
    age(trail, 500, "id = 1")
    assert run("prune", "--older-than", "400d", "--dry-run")[1] == "1 entries would be removed.\n"
    assert run("prune", "--older-than", "9600h")[1] == "1 entries removed.\n"
    assert run("prune", "--older-than", "400d")[1] == "0 entries removed.\n"
    assert run("prune", "--older-than", "soon")[0] == 2
    assert run("show", "audited_items", "--since", "soon")[0] == 2
    assert run("prune")[0] == 2
