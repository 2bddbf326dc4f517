"""Both checkers, run once each over the files of this folder."""

from __future__ import annotations

import pytest
from checkers import FILES, FOLDER, Findings, mypy, pyright


@pytest.fixture(scope="session")
def findings() -> dict[str, Findings]:
    """What each checker finds in the files of this folder."""
    files = [FOLDER / name for name in FILES]
    return {"mypy": mypy(*files), "pyright": pyright(*files)}
