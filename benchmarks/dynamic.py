"""What queries cost that are put together anew for each call, beside Peewee's.

``python -m benchmarks.dynamic`` prints the client's instructions of each shape.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.workloads import Workload, key_of, user_number

NAMES: Final = ("peewee", "orm_core")


class Dynamic:
    """The queries, of a contender whose models are Peewee's or ours."""

    User: Any
    Session: Any

    def live(self, model: Any, *columns: Any) -> Any:
        """SELECT of the rows that are not soft-deleted."""
        raise NotImplementedError

    def dynamic_get(self, index: int) -> Any:
        """One row by a unique column."""
        return self.live(self.User).where(self.User.email == _email(index)).get()

    def dynamic_list(self, index: int) -> Any:
        """Ten rows in an order."""
        user = self.User
        some = self.live(user).where(user.last_name.is_null(False), user.email > _email(index))
        return list(some.order_by(user.id).limit(10))

    def dynamic_tuples(self, index: int) -> Any:
        """Two columns of rows by their ids."""
        user = self.User
        ids = [key_of(user_number(index) + place) for place in range(5)]
        some = self.live(user, user.id, user.email).where(user.id.in_(ids))
        return sorted((str(key), email) for key, email in some.tuples())

    def dynamic_or(self, index: int) -> Any:
        """Rows that one of two conditions finds."""
        user, other = self.User, _email(index + 1)
        either = (user.email == _email(index)) | (user.email == other)
        return list(self.live(user).where(either).order_by(user.id))

    def dynamic_count(self, index: int) -> Any:
        """How many there are."""
        return self.live(self.User).where(self.User.email == _email(index)).count()

    def dynamic_join(self, index: int) -> Any:
        """Rows by a column of the table that they refer to."""
        user, session = self.User, self.Session
        joined = self.live(session).join(user, on=session.user == user.id)
        return list(joined.where(user.email == _email(index)).order_by(session.id))


def _email(index: int) -> str:
    return f"user{user_number(index)}@example.com"


CALLS: Final = [name for name in vars(Dynamic) if name.startswith("dynamic_")]


def main() -> None:
    """Count, and print a line for each."""
    from benchmarks.counting import best_meter
    from benchmarks.measure import Results, count

    workloads = [Workload(name.removeprefix("dynamic_"), name, name, 40, 0) for name in CALLS]
    with best_meter() as meter:
        if meter is None:
            raise SystemExit("Instructions can't be counted here: install valgrind.")
        results = Results(workloads)
        count(meter, NAMES, results)
    for one in workloads:
        theirs, ours = (results.cell(one.key, name).client or 0 for name in NAMES)
        print(f"{one.key:<8} Peewee {theirs:>11,.0f}  orm_core {ours:>9,.0f}  {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
