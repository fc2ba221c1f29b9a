"""`python -m benchmarks`: every benchmark that runs on a CPU, one after the other."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Runs each program in a process of its own; the exit code is the worst of theirs."""
    programs = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("_"))
    codes = []
    for path in programs:
        print(f"== {path.stem}", flush=True)
        codes.append(subprocess.run([sys.executable, str(path)], cwd=HERE.parent, check=False).returncode)
    return max(codes, default=0)


if __name__ == "__main__":
    raise SystemExit(main())
