"""The system user that the server runs as: ourselves, or a stand-in for root."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orm_core.errors import EmbeddedError

STAND_INS = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """A system user, and what it may reach by the mode bits (ACLs are not looked at)."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def dropped(self) -> bool:
        """True when a process must change its user to become this one."""
        return self.uid != os.geteuid()

    def process_options(self) -> dict[str, Any]:
        """Keyword arguments for subprocess that run a program as this user."""
        if not self.dropped:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}

    def may(self, path: Path, bits: int) -> bool:
        """True when all of `bits` (4 read, 2 write, 1 execute or enter) are ours on `path`."""
        info = path.stat()
        if info.st_uid == self.uid:
            shift = 6
        elif info.st_gid in self.groups:
            shift = 3
        else:
            shift = 0
        return (info.st_mode >> shift) & bits == bits

    def reaches(self, path: Path) -> bool:
        """True when every folder above the real `path` may be entered."""
        return not self.dropped or all(self.may(parent, 1) for parent in path.resolve().parents)


def of_server(data: Path) -> Account:
    """Return the user the server of the data directory `data` runs as; it may not exist yet.

    Raises EmbeddedError for a user without a passwd entry and for root without a stand-in.
    """
    if os.geteuid() != 0:
        return _by_uid(os.geteuid())
    if data.exists():
        owner = data.stat().st_uid
        if owner == 0:
            raise EmbeddedError(
                f"The data directory {data} belongs to root, and PostgreSQL refuses to run as "
                f"root. Give it to another user: chown -R {STAND_INS[0]} {data.resolve()}"
            )
        return _by_uid(owner)
    return _stand_in()


def _by_uid(uid: int) -> Account:
    import pwd  # absent on Windows

    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedError(
            f"The user id {uid} has no entry in /etc/passwd, and PostgreSQL can't start without "
            f"one. Add a line such as 'app:x:{uid}:{os.getegid()}::/tmp:/bin/sh' to /etc/passwd "
            "(in a container: in the image), run as another user, or set DATABASE_URL."
        ) from None
    return _account(entry)


def _stand_in() -> Account:
    import pwd

    for name in STAND_INS:
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            continue
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and this system has no user postgres or nobody to "
        "run it as. Add one (useradd --system postgres), run as a plain user, or set DATABASE_URL."
    )


def _account(entry: Any) -> Account:
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups)
