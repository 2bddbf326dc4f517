"""The workloads: what is done, how often, and what of its result has to be equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: rows in every contender's database at the start
USERS: Final = 2000
SESSIONS_OF_A_USER: Final = 3
ORDERS: Final = 6000

#: the ids of these rows begin with it
SEEDED: Final = "00000000-0000-7000-8000-"

PAGE: Final = 50
MANY: Final = 1000
PARENTS: Final = 100
BULK: Final = 10_000

USER: Final = ("email", "first_name", "last_name", "avatar", "provider_account_id", "deleted_at")
SESSION: Final = ("user_id", "status", "provider", "provider_account_id", "metadata")
ORDER: Final = ("status", "total", "user_id")


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    ``call`` is the contender's method. ``counted`` and ``timed`` are the calls of one count and
    of one round, ``warm`` those before. ``threads`` of more than one work side by side;
    ``checkout`` takes a connection of the pool for each call instead of one for all.
    """

    key: str
    title: str
    call: str
    counted: int
    timed: int
    warm: int = 30
    threads: int = 1
    checkout: bool = False
    delayed: bool = False

    @property
    def first(self) -> int:
        """Its first index: rows that are new in one workload must be new in the others."""
        return {"sign_up": 10_000_000, "mixed": 20_000_000}.get(self.call, 0)


WORKLOADS: Final = {
    one.key: one
    for one in (
        # Reads come first: they see the same rows whatever is timed after them.
        Workload("W2", "find by e-mail", "find", 40, 300),
        Workload("W6", f"page of {PAGE}", "page", 10, 100),
        Workload("W7", f"{MANY:,} objects", "many", 3, 20, warm=10),
        Workload("W8", f"{PARENTS} users with their sessions", "relations", 3, 20, warm=10),
        Workload("W10", "request: checkout, find, return", "find", 40, 300, checkout=True),
        Workload("W1", "create", "create", 40, 200),
        Workload("W3", "update returning", "update", 40, 200),
        Workload("W4", "soft delete", "soft_delete", 40, 100),
        Workload("W5", "user + session, two tokens sealed", "sign_up", 20, 100),
        Workload("W11", "8 threads mixed", "mixed", 80, 400, threads=8, checkout=True),
        Workload("W12", "find by e-mail without metrics", "find", 40, 300),
        Workload("W9", f"insert of {BULK:,}", "bulk", 1, 1, warm=0),
        Workload(
            "W14",
            "16 threads, 10 connections, 5 ms away",
            "find",
            0,
            1600,
            warm=32,
            threads=16,
            checkout=True,
            delayed=True,
        ),
    )
}


def key_of(number: int) -> str:
    """The id of the seeded user or order of this number, from 1; ids are in its order."""
    return f"{SEEDED}{number:012}"


def user_number(index: int) -> int:
    """A seeded user for the call of this index."""
    return index * 7 % (USERS // 2) + 1


def new_user(index: int) -> dict[str, str]:
    """The payload of a user that is not there yet."""
    return {
        "email": f"new{index}@example.com",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "provider_account_id": f"account-{index}",
    }


def bulk_totals() -> range:
    """The totals of the orders of a bulk insert."""
    return range(BULK)


def kind_of(index: int) -> str:
    """The call at this place of the mixed load: 7 finds, 2 updates, 1 create."""
    return "create" if index % 10 == 0 else "update" if index % 10 in (3, 6) else "find"
