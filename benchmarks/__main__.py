"""`python -m benchmarks`: every benchmark that runs on a CPU, one after the other."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("encoding", "serving", "training")


def main() -> int:
    """Runs each program in a process of its own; the exit code is the worst of theirs."""
    codes = []
    for program in PROGRAMS:
        print(f"== {program}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"benchmarks.{program}"], cwd=ROOT, check=False).returncode)
    return max(codes, default=0)


if __name__ == "__main__":
    raise SystemExit(main())
