"""A folder of root's that a stand-in user can reach, for what lies where it can't."""

import stat
from pathlib import Path

from orm_core.embedded.account import Account
from orm_core.errors import EmbeddedError

PLACES = (Path("/var/lib/orm_core"), Path("/var/tmp/orm_core"))  # noqa: S108 (checked)


def folder(account: Account) -> Path:
    """Return the shelter, made when absent: root's, entered by all, written by root only.

    Raises EmbeddedError when no place can be used.
    """
    for place in PLACES:
        try:
            place.mkdir(mode=0o711)
            place.chmod(0o711)  # whatever the umask is
        except FileExistsError:
            pass
        except OSError:
            continue  # a read-only or absent parent: the next place
        if _is_safe(place) and account.reaches(place / "x"):
            return place
    raise EmbeddedError(
        f"The server runs as user {account.name}, who can't reach its files where they are, and "
        f"none of {', '.join(map(str, PLACES))} can hold them: each has to be a folder of root's "
        "that only root writes and others may enter. Repair one of them, use a folder that "
        f"{account.name} can reach, run as a plain user, or set DATABASE_URL."
    )


def _is_safe(place: Path) -> bool:
    info = place.lstat()
    return stat.S_ISDIR(info.st_mode) and info.st_uid == 0 and not info.st_mode & 0o022
