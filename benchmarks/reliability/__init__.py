"""What becomes of writes and callers on a bad day: the same faults for each contender.

``python -m benchmarks.reliability`` prints a table; ``--docs`` writes it into docs/reliability.md.
The server and the proxy are those of tests/faults.
"""

import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
sys.path[:0] = [str(TOP / "tests" / "integration"), str(TOP / "tests" / "faults")]
