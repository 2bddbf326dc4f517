"""Running both checkers, and what they find by file and line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
FILES = ("correct.py", "wrong.py")

#: file name -> line -> what the checker says
Findings: TypeAlias = dict[str, dict[int, list[str]]]

#: pyright's words on code that computes and keeps nothing, as wrong lines do
_IDLE = {"reportUnusedExpression", "reportUnusedVariable"}


def mypy(*files: Path) -> Findings:
    """What mypy finds, as strict as setup.cfg says."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: Findings = defaultdict(lambda: defaultdict(list))
    for file, line, message in re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found[Path(file).name][int(line)].append(message)
    return found


def pyright(*files: Path) -> Findings:
    """What pyright finds, as strict as pyproject.toml says."""
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(
        [*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files), done.stdout + done.stderr
    found: Findings = defaultdict(lambda: defaultdict(list))
    for one in report["generalDiagnostics"]:
        if one["severity"] == "error" and one.get("rule") not in _IDLE:
            line = one["range"]["start"]["line"] + 1
            found[Path(one["file"]).name][line].append(one["message"])
    return found
