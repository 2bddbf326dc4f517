"""Drizzle on Node, installed by npm into a folder outside the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks import workloads
from benchmarks.contenders import EXPIRES, TOKENS, Unable

HERE = Path(__file__).parent


def command(url: str, pool_size: int) -> list[str]:
    """What starts it. Raises ``Unable`` without node and npm."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise Unable("there is no node or no npm")
    os.environ["ORM_CORE_BENCHMARK_MODULES"] = str(_modules())
    sizes = {
        name: getattr(workloads, name)
        for name in ("PAGE", "MANY", "PARENTS", "BULK", "USERS", "SEEDED")
    }
    given = json.dumps({**sizes, "TOKENS": TOKENS, "EXPIRES": EXPIRES.isoformat()})
    return [node, str(HERE / "contender.mjs"), url, str(pool_size), given]


def _modules() -> Path:
    """The folder of the installed packages; kept for the next run."""
    folder = Path(tempfile.gettempdir()) / f"orm_core-benchmark-npm-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Unable(f"{folder} belongs to somebody else")
    text = (HERE / "package.json").read_text()
    manifest = folder / "package.json"
    if not manifest.exists() or manifest.read_text() != text or not (folder / "done").exists():
        manifest.write_text(text)
        answer = subprocess.run(["npm", "install", "--silent"], cwd=folder, check=False)
        if answer.returncode:
            raise Unable("npm could not install it")
        (folder / "done").touch()
    return folder
