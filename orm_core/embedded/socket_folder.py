"""The folder of the server's Unix socket: a short path, entered by the server's user alone."""

import hashlib
import os
import stat
from pathlib import Path

from orm_core.embedded.account import Account
from orm_core.errors import EmbeddedError


def path_for(folder: Path) -> Path:
    """Return the socket folder of the data folder `folder`; the same for each of our processes.

    It is under /tmp, for a socket's path is limited to about 100 bytes.
    """
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(f"/tmp/orm_core-{os.geteuid()}-{digest}")  # noqa: S108 (see make)


def make(path: Path, account: Account) -> None:
    """Create the folder when absent, and make sure that it is the server's alone.

    Anybody can create a folder in /tmp: raises EmbeddedError when it is a link, another user's,
    or open to others.
    """
    try:
        path.mkdir(mode=0o700)
        os.chown(path, account.uid, account.gid)
    except FileExistsError:
        pass
    info = path.lstat()
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISDIR(info.st_mode) and info.st_uid == account.uid and mode == 0o700:
        return
    raise EmbeddedError(
        f"The socket folder {path} is not safe to use: it should be a folder of user "
        f"{account.name} with mode 700, and is {stat.filemode(info.st_mode)} of user id "
        f"{info.st_uid}. Someone else may have made it; look at it, delete it, and try again."
    )
