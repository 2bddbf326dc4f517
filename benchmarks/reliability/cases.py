"""The cases: each breaks something and looks at what the caller and the database have then."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import psycopg2
from fault_proxy import Do, FaultProxy, Sender, Step
from private_server import ServerProcess

from benchmarks.reliability.contenders import LIMIT, CanNotError, Contender

#: seconds a limited call may take beyond its limit, on a busy machine
SLACK = 2.5
DEADLINE = 15.0


class Stage:
    """A server, a proxy in front of it, and a contender pointed at the proxy."""

    def __init__(self, server: ServerProcess, proxy: FaultProxy, contender: Contender) -> None:
        self.server = server
        self.proxy = proxy
        self.it = contender

    def open(self, size: int = 4, timeout: float = 5.0) -> Contender:
        given = self.server.server
        params = {"host": given.host, "port": self.proxy.port, "dbname": "postgres"}
        params |= {"user": "app", "password": given.password}
        params |= {"sslmode": "disable", "gssencmode": "disable"}  # all that the proxy knows
        self.it.open(params, size, timeout)
        return self.it

    def truth(self, sql: str) -> Any:
        with closing(psycopg2.connect(self.server.server.url())) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(sql)
            return cursor.fetchone()

    def rows(self) -> tuple[int, int]:
        """How many debits and credits there are, once nobody writes any more."""
        until(lambda: self.truth(_OPEN) == (0,), "a transaction stays open on the server")
        return tuple(  # type: ignore[return-value]
            self.truth(f"SELECT count(*) FROM {table}")[0] for table in ("debits", "credits")
        )


_OPEN = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND xact_start IS NOT NULL"


def check(condition: Any, why: str) -> None:
    if not condition:
        raise AssertionError(why)


def until(condition: Callable[[], Any], why: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        check(time.monotonic() < deadline, why)
        time.sleep(0.01)


class Mine(Exception):
    """Of the caller."""


def failure_of(call: Callable[[], Any]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("no error is told")


def transfer(it: Contender, between: Callable[[], Any] = bool) -> None:
    with it.transaction() as run:
        run("INSERT INTO debits VALUES (1)")
        between()
        run("INSERT INTO credits VALUES (1)")


def works(it: Contender, why: str = "the next statement fails") -> None:
    try:
        found = it.one("SELECT 'mine'")
    except Exception as error:
        raise AssertionError(f"{why}: {type(error).__name__}") from error
    check(found == ("mine",), "it answers for another statement")


def in_threads(count: int, call: Callable[[], Any], seconds: float = DEADLINE) -> list[Any]:
    """Results or errors of so many threads; those that do not end in time are None."""
    found: list[Any] = [None] * count

    def run(place: int) -> None:
        try:
            found[place] = call()
        except Exception as error:
            found[place] = error

    started = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in started:
        thread.start()
    ends = time.monotonic() + seconds
    for thread in started:
        thread.join(max(0.0, ends - time.monotonic()))
    return found


def in_time(it: Contender, call: Callable[[], Any]) -> Any:
    """What a limited call ends with; it fails when it does not end near its limit."""
    started = time.monotonic()
    thread = in_threads(1, lambda: it.limited(call), LIMIT + SLACK)
    check(time.monotonic() - started < LIMIT + SLACK, "a call does not end at its limit")
    check(thread[0] is not None, "a call does not end at its limit")
    return thread[0]


def when(sender: Sender, kind: str, body: bytes, do: Do) -> Callable[[Step], Do]:
    def rule(step: Step) -> Do:
        is_it = step.sender == sender and step.kind == kind and step.body.startswith(body)
        return do if is_it else Do.PASS

    return rule


# -- the server -----------------------------------------------------------------------------


def killed_in_a_statement(stage: Stage) -> None:
    it = stage.open()
    works(it)
    later = threading.Timer(0.3, stage.server.kill)
    later.start()
    failure_of(lambda: it.one("SELECT pg_sleep(0.9)"))
    later.join()
    stage.server.start()
    works(it)


def killed_in_a_transaction(stage: Stage) -> None:
    it = stage.open()
    failure_of(lambda: transfer(it, stage.server.kill))
    stage.server.start()
    check(stage.rows() == (0, 0), "half a transfer is there")
    works(it)


def _restarted(stage: Stage, how: signal.Signals) -> None:
    it = stage.open()
    in_threads(3, lambda: it.one("SELECT pg_sleep(0.2)"))
    stage.server.stop(how)
    stage.server.start()
    for _ in range(4):
        works(it, "a statement fails after the restart")


def restarted_fast(stage: Stage) -> None:
    _restarted(stage, signal.SIGINT)


def restarted_at_once(stage: Stage) -> None:
    _restarted(stage, signal.SIGQUIT)


def down_at_the_start(stage: Stage) -> None:
    stage.server.stop()
    it = stage.open()
    later = threading.Timer(2, stage.server.start)
    later.start()
    try:
        it.wait_for_server(DEADLINE)
    finally:
        later.join()
    works(it)


def frozen(stage: Stage) -> None:
    it = stage.open()
    works(it)
    stage.server.freeze()
    try:
        in_time(it, lambda: it.one("SELECT 'stale'"))
    finally:
        stage.server.thaw()
    for _ in range(4):
        works(it)


def three_connections_for_the_role(stage: Stage) -> None:
    stage.server.server.run("ALTER ROLE app CONNECTION LIMIT 3")
    it = stage.open(10)
    found = in_threads(12, lambda: [it.one("SELECT pg_sleep(0.02)") for _ in range(3)])
    check(None not in found, "threads hang")
    stage.server.server.run("ALTER ROLE app CONNECTION LIMIT -1")
    found = in_threads(10, lambda: it.one("SELECT pg_sleep(0.2)"))
    check(not any(isinstance(one, Exception) for one in found), "places are lost for good")


# -- the network ----------------------------------------------------------------------------


def _black_hole(stage: Stage, *senders: Sender) -> None:
    it = stage.open()
    works(it)
    stage.proxy.freeze(*senders)
    try:
        in_time(it, lambda: it.one("SELECT 'stale'"))
    finally:
        stage.proxy.heal()
    for _ in range(4):
        works(it)


def black_hole(stage: Stage) -> None:
    _black_hole(stage, "client", "server")


def black_hole_of_what_we_say(stage: Stage) -> None:
    _black_hole(stage, "client")


def black_hole_of_what_it_says(stage: Stage) -> None:
    _black_hole(stage, "server")


def answer_that_comes_late(stage: Stage) -> None:
    it = stage.open(1)
    works(it)
    threading.Timer(LIMIT + SLACK, stage.proxy.thaw).start()
    stage.proxy.freeze("server")
    with suppress(Exception):
        it.limited(lambda: it.one("SELECT 'stale'"))
    stage.proxy.thaw()
    for _ in range(4):
        works(it)


def hanging_connect(stage: Stage) -> None:
    it = stage.open(timeout=LIMIT)
    stage.proxy.hang()
    try:
        found = in_time(it, lambda: it.one("SELECT 1"))
        check(isinstance(found, Exception), "no error is told")
    finally:
        stage.proxy.heal()
    works(it)


def hanging_connect_of_another(stage: Stage) -> None:
    it = stage.open(3)
    with it.hold() as run:
        run("SELECT 1")
        stage.proxy.hang()
        threading.Thread(target=lambda: failure_of(lambda: it.one("SELECT 1"))).start()
        time.sleep(0.3)
        started = time.monotonic()
    works(it)
    check(time.monotonic() - started < 1, "those who find an idle connection wait, too")


def commit_that_is_lost(stage: Stage) -> None:
    it = stage.open()
    stage.proxy.rule = when("client", "Q", b"COMMIT", Do.CUT)
    error = failure_of(lambda: transfer(it))
    stage.proxy.rule = None
    check(stage.rows() == (0, 0), "it is there")
    check(it.is_unknown(error), f"{type(error).__name__}, as for what was not applied")


def commit_whose_answer_is_lost(stage: Stage) -> None:
    it = stage.open()
    stage.proxy.rule = when("server", "C", b"COMMIT", Do.CUT)
    error = failure_of(lambda: transfer(it))
    stage.proxy.rule = None
    check(stage.rows() == (1, 1), "it is not there")
    check(it.is_unknown(error), f"{type(error).__name__}, as for what was not applied")


def outcome_found_out(stage: Stage) -> None:
    it = stage.open()
    for what, expected in ((("server", "C"), "applied"), (("client", "Q"), "not applied")):
        stage.proxy.rule = when(*what, b"COMMIT", Do.CUT)  # type: ignore[arg-type]
        error = failure_of(lambda: transfer(it))
        stage.proxy.rule = None
        check(it.find_out(error) == expected, "it says otherwise")


def cut_at_each_message(stage: Stage) -> None:
    it = stage.open()
    for sender in ("client", "server"):
        for number in range(1, 7):
            works(it)
            before, left = stage.rows(), [number]

            def rule(step: Step, left: list[int] = left, sender: str = sender) -> Do:
                left[0] -= step.sender == sender
                return Do.CUT if not left[0] and step.sender == sender else Do.PASS

            stage.proxy.rule = rule
            told: Any = "applied"
            try:
                transfer(it)
            except Exception as error:
                told = error
            stage.proxy.rule = None
            debits, credited = stage.rows()
            check(debits == credited, "one of two rows is there")
            if told == "applied":
                check(debits == before[0] + 1, "it is told as applied, and not there")
            elif debits > before[0]:
                check(it.is_unknown(told), "it is told as failed, and there")


def slow_network(stage: Stage) -> None:
    it = stage.open(8)
    in_threads(8, lambda: it.one("SELECT pg_sleep(0.1)"))
    stage.proxy.delay = 0.05
    started = time.monotonic()
    found = in_threads(8, lambda: [it.one("SELECT 1") for _ in range(5)])
    check(not any(isinstance(one, Exception) or one is None for one in found), "statements fail")
    # Forty round trips of 50 ms, one after the other, are 2 s.
    check(time.monotonic() - started < 1.8, "threads wait for each other's round trips")


# -- the pool -------------------------------------------------------------------------------


def fairness(stage: Stage) -> None:
    it = stage.open(5, DEADLINE)
    turns = [0] * 25
    ends = time.monotonic() + 3
    places = iter(range(25))

    def visit() -> None:
        place = next(places)
        while time.monotonic() < ends:
            with it.hold() as run:
                run("SELECT pg_sleep(0.02)")
            turns[place] += 1

    found = in_threads(25, visit)
    failed = [type(one).__name__ for one in found if isinstance(one, Exception)]
    check(not failed, f"{len(failed)} threads get {', '.join(set(failed))}")
    middle = sorted(turns)[12]
    check(min(turns) * 2 >= middle, f"{min(turns)} to {max(turns)} turns")


def exhausted(stage: Stage) -> None:
    it = stage.open(1, 0.5)
    with it.hold() as run:
        run("SELECT 1")
        started = time.monotonic()
        found = in_threads(1, lambda: it.one("SELECT 1"), 5)
        check(isinstance(found[0], Exception), "it waits for ever")
        waited = time.monotonic() - started
        check(0.4 < waited < 1.5, f"the wait of 0.5 s takes {waited:.1f} s")
    works(it)


def dying_threads(stage: Stage) -> None:
    it = stage.open(3, 2)

    def take_and_die() -> None:
        mine = it.take()  # noqa: F841

    for _ in range(12):
        found = in_threads(1, take_and_die)
        gc.collect()  # it would come some time
        check(not isinstance(found[0], Exception), "its place is never given back")
    works(it, "no connection is left")


def forked_children(stage: Stage) -> None:
    it = stage.open()
    with it.hold() as run:
        mine = run("SELECT pg_backend_pid()")
        children = []
        for _ in range(4):
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                signal.alarm(5)
                with suppress(BaseException):
                    os.write(writing, str(it.one("SELECT pg_backend_pid()")[0]).encode())
                os._exit(0)
            os.close(writing)
            children.append(os.read(reading, 99))
            os.waitpid(child, 0)
        check(str(mine[0]).encode() not in children, "a child uses its parent's session")
        check(b"" not in children, "a child can't ask")
        check(run("SELECT 'mine'") == ("mine",), "it answers for another statement")
    check(len(set(children)) == 4, "children share a session")


def open_transaction(stage: Stage) -> None:
    it = stage.open(1)
    with suppress(Exception), it.hold() as run:
        run("BEGIN")
        run("INSERT INTO debits VALUES (1)")
        raise Mine  # some pools commit at the end of a block without one
    works(it)
    with it.hold() as run:
        found = run("SELECT count(*), max(pg_current_xact_id_if_assigned()::text) FROM debits")
    check(found == (0, None), "the next user is inside it")
    check(stage.rows() == (0, 0), "it is there")


def session_state(stage: Stage) -> None:
    it = stage.open(1)
    with it.hold() as run:
        run("SET search_path = pg_catalog")
        run("CREATE TEMP TABLE mine (id int)")
        run("SELECT pg_advisory_lock(7)")
    with it.hold() as run:
        found = run(
            "SELECT current_setting('search_path'), to_regclass('pg_temp.mine')::text,"
            " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
        )
    check(found == ('"$user", public', None, 0), "the next user finds it")


# -- errors ---------------------------------------------------------------------------------


def begin_that_fails(stage: Stage) -> None:
    it = stage.open(1)
    works(it)
    stage.server.stop()
    failure_of(lambda: transfer(it))
    stage.server.start()
    transfer(it)
    check(stage.rows() == (1, 1), "the next transfer is not there")


def swallowed_error(stage: Stage) -> None:
    it = stage.open()

    def swallow() -> None:
        with it.transaction() as run:
            run("INSERT INTO debits VALUES (1)")
            with suppress(Exception):
                run("SELECT 1 / 0")

    failure_of(swallow)
    check(stage.rows() == (0, 0), "it is there")


def masked_error(stage: Stage) -> None:
    it = stage.open()

    def fail() -> None:
        with it.transaction() as run:
            run("INSERT INTO debits VALUES (1)")
            stage.proxy.cut()
            raise Mine

    error = failure_of(fail)
    check(isinstance(error, Mine), f"{type(error).__name__} hides it")
    works(it)


def interrupted(stage: Stage) -> None:
    it = stage.open(1, 1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    for pause in range(1, 60):
        signal.setitimer(signal.ITIMER_REAL, pause / 4000)
        with suppress(KeyboardInterrupt):
            while True:
                with suppress(Exception):
                    transfer(it)
        signal.setitimer(signal.ITIMER_REAL, 0)
    for _ in range(2):
        with suppress(Exception):  # who opens in the background has time to
            it.one("SELECT 1")
    works(it, "the connection is lost")
    debits, credited = stage.rows()
    check(debits == credited, "one of two rows is there")
    transfer(it)
    check(stage.rows() == (debits + 1, debits + 1), "what is told as applied is not there")


def serialization(stage: Stage) -> None:
    it = stage.open()
    if it.name != "orm_core":
        raise CanNotError("the caller writes the loop")
    from orm_core import run_transaction

    stage.truth("INSERT INTO debits VALUES (0) RETURNING 1")

    def add(_: Any) -> None:
        (value,) = it.one("SELECT sum(id) FROM debits")
        it.one("INSERT INTO debits VALUES (1)")
        time.sleep(0.01)
        check(value is not None, "")

    found = in_threads(4, lambda: run_transaction(add, isolation="serializable", attempts=50))
    check(found == [None] * 4 and stage.rows()[0] == 5, f"{found}")


CASES: dict[str, Callable[[Stage], None]] = {
    "kill -9 in a statement": killed_in_a_statement,
    "kill -9 in a transaction": killed_in_a_transaction,
    "fast restart": restarted_fast,
    "immediate restart": restarted_at_once,
    "server down at the start": down_at_the_start,
    "frozen server (SIGSTOP)": frozen,
    "three connections for the role": three_connections_for_the_role,
    "black hole": black_hole,
    "black hole of what we say": black_hole_of_what_we_say,
    "black hole of what it says": black_hole_of_what_it_says,
    "an answer that comes late": answer_that_comes_late,
    "hanging connect": hanging_connect,
    "hanging connect of another thread": hanging_connect_of_another,
    "COMMIT that is lost": commit_that_is_lost,
    "COMMIT whose answer is lost": commit_whose_answer_is_lost,
    "the outcome is found out": outcome_found_out,
    "cut at each message": cut_at_each_message,
    "slow network, many threads": slow_network,
    "25 threads on 5 connections": fairness,
    "exhausted pool": exhausted,
    "12 threads die": dying_threads,
    "fork of 4": forked_children,
    "transaction left open": open_transaction,
    "session state": session_state,
    "BEGIN that fails": begin_that_fails,
    "swallowed error": swallowed_error,
    "the caller's exception": masked_error,
    "interrupts": interrupted,
    "serialization failures": serialization,
}
