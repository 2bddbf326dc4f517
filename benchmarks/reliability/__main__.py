"""``python -m benchmarks.reliability``."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from fault_proxy import fault_proxy
from private_server import Cluster, ServerProcess, cluster

from benchmarks.reliability import TOP
from benchmarks.reliability.cases import CASES, Stage
from benchmarks.reliability.contenders import CONTENDERS, CanNotError
from benchmarks.report import machine

#: seconds for a case; one that takes longer hangs
PATIENCE = 60
FOLDER = "server"
BEGIN = "<!-- figures: written by python -m benchmarks.reliability --docs -->"
END = "<!-- /figures -->"
PACKAGES = ("orm_core", "peewee", "SQLAlchemy", "psycopg2-binary", "psycopg", "psycopg_pool")
#: "" is passed, else why not
Verdicts = dict[tuple[str, str], str]


def verdict_of(name: str, case: str, process: ServerProcess) -> str:
    """ "" or what is wrong, in few words."""
    given = process.server
    with fault_proxy(given.host, given.port) as proxy:
        try:
            CASES[case](Stage(process, proxy, CONTENDERS[name]()))
        except AssertionError as error:
            return str(error)
        except CanNotError as error:
            return f"can't: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0][:80]
    return ""


def _play(files: Cluster, name: str, case: str, answer: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    logging.disable()
    process = files.prepare(FOLDER)
    try:
        process.start()
        process.server.run(
            "CREATE ROLE app LOGIN PASSWORD '{password}'",
            "CREATE TABLE debits (id int)",
            "CREATE TABLE credits (id int)",
            "GRANT ALL ON debits, credits TO app",
        )
        answer.send(verdict_of(name, case, process))
    finally:
        process.kill()
        os._exit(0)  # threads of the case may hang


def run(names: Iterable[str], cases: Iterable[str]) -> Verdicts:
    """Each case in a process of its own, on a server of its own."""
    fork = multiprocessing.get_context("fork")
    found: Verdicts = {}
    with cluster(secrets.token_urlsafe(18)) as files:
        for case in cases:
            for name in names:
                receiver, sender = fork.Pipe(duplex=False)
                play = fork.Process(target=_play, args=(files, name, case, sender))
                play.start()
                sender.close()
                try:
                    ends = receiver.poll(PATIENCE)
                    found[name, case] = receiver.recv() if ends else "it hangs"
                except EOFError:
                    found[name, case] = "the process ends"
                play.join(5)
                play.kill()
                play.join()
                shutil.rmtree(files.folder / FOLDER)
                print(f"{case:35} {name:14} {found[name, case] or 'passed'}", flush=True)
    return found


def table(verdicts: Verdicts) -> str:
    """Markdown: a line for each case, and how many each contender passes."""
    names = list(dict.fromkeys(name for name, _ in verdicts))
    cases = list(dict.fromkeys(case for _, case in verdicts))
    lines = [["case", *names], ["---"] * (len(names) + 1)]
    lines += [[case, *(verdicts[name, case] or "passed" for name in names)] for case in cases]
    passed = [sum(not verdicts[name, case] for case in cases) for name in names]
    lines.append(["**passed**", *(f"**{count} of {len(cases)}**" for count in passed)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_docs(text: str) -> None:
    """Put the table into docs/reliability.md, between its marks."""
    page = TOP / "docs" / "reliability.md"
    head, begin, rest = page.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page} lacks the marks {BEGIN} and {END}")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    made = f"Made on {datetime.now(UTC):%Y-%m-%d}: {machine()}; {versions}."
    page.write_text(f"{head}{BEGIN}\n\n{made}\n\n{text}\n\n{END}{tail}")


def main() -> None:
    """Run what the command line asks for, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--only", help="cases, by a part of their names")
    parser.add_argument("--peers", help="contenders: orm_core,Peewee (default: all)")
    parser.add_argument("--docs", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    cases = [case for case in CASES if (options.only or "") in case]
    names = options.peers.split(",") if options.peers else list(CONTENDERS)
    text = table(run(names, cases))
    print(text)
    if options.docs:
        write_docs(text)


if __name__ == "__main__":
    main()
