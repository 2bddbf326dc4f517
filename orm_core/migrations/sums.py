"""``migrations.sum``: the SHA-256 of each file, so that an edit of an old one is seen.

The sum stands in the folder and in version control. Two branches that both add the next number
meet in it as a conflict. ``orm-core migrate generate`` writes it; after a file was written by
hand ``orm-core migrate sum`` does.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Final

from orm_core.migrations.files import names_in, write_whole

FILE: Final = "migrations.sum"
#: how git marks a conflict
_CONFLICT: Final = ("<<<<<<<", "=======", ">>>>>>>")


def write(folder: Path) -> Path:
    """Write the sums of all files of the folder."""
    path = folder / FILE
    lines = [f"{digest}  {name}\n" for name, digest in _digests(folder).items()]
    write_whole(path, "".join(lines))
    return path


def _digests(folder: Path) -> dict[str, str]:
    return {name: _digest(folder / f"{name}.py") for name in names_in(folder)}


def _digest(path: Path) -> str:
    # git may have changed the ends of lines
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _recorded(folder: Path) -> dict[str, str]:
    lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("  ", 1) for line in lines if "  " in line)
    return {name: digest for digest, name in pairs}


def conflicts(folder: Path) -> list[str]:
    """Numbers that two files have, and files that look like migrations and would be passed over."""
    by_number: dict[str, list[str]] = defaultdict(list)
    for name in names_in(folder):
        by_number[name[:3]].append(name)
    found = [
        f"{' and '.join(names)} have the same number: give one of them the next free one."
        for names in by_number.values()
        if len(names) > 1
    ]
    return found + [
        f"{name}.py would be passed over: a migration's name is three digits, an underscore and "
        "words without a dot, such as 007_adds_notes; numbers end at 999."
        for name in _strays(folder)
    ]


def _strays(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    known = set(names_in(folder))
    named = (path.stem for path in folder.glob("*.py") if path.stem[:1].isdigit())
    return sorted(name for name in named if name not in known)


def problems(folder: Path) -> list[str]:
    """Conflicting numbers, and files that are not what their sum says, where there are sums."""
    found = conflicts(folder)
    if not (folder / FILE).is_file():
        return found
    if any(line.startswith(_CONFLICT) for line in (folder / FILE).read_text("utf-8").splitlines()):
        found.append(f"{FILE} holds a merge conflict: run orm-core migrate sum.")
        return found
    recorded, present = _recorded(folder), _digests(folder)
    for name, digest in present.items():
        if name not in recorded:
            found.append(f"{name} has no sum: run orm-core migrate sum.")
        elif recorded[name] != digest:
            found.append(
                f"{name} was edited after it was written. Take the edit back and write a new "
                "migration; if it was applied nowhere, run orm-core migrate sum."
            )
    found += [f"{name} has a sum and no file." for name in recorded if name not in present]
    return found
