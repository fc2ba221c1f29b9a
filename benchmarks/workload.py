"""What the benchmarks share: real texts, the two sides in processes of their own, and where a figure was measured."""

import ast
import importlib.util
import json
import os
import platform
import random
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

MODEL = "minilm"
OURS, PEER = "embed_assets", "sentence-transformers"
SIDES = (OURS, PEER)


def functions(packages: tuple[str, ...], count: int, *, seed: int = 7) -> list[str]:
    """Source of `count` public functions and methods of installed packages, drawn at random."""
    found = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        for file in sorted(Path(spec.submodule_search_locations[0]).rglob("*.py")):
            source = file.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    found.append(ast.get_source_segment(source, node) or "")
    return random.Random(seed).sample([code for code in found if 80 <= len(code) <= 4000], count)


def run_side(program: str, arguments: list[str], *, threads: int) -> dict[str, Any]:
    """Runs one side in a process of its own and returns the JSON of its last line.

    Raises:
        RuntimeError: the process failed.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    command = [sys.executable, "-W", "ignore", "-m", program, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[3:])} ended with {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def surroundings(device: str, threads: int) -> str:
    """Date, hardware and versions, as one paragraph."""
    names = ("embed-assets", "torch", "sentence-transformers", "transformers", "peft", "tokenizers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    where = f"{processor()}, {os.cpu_count()} cores, {threads} threads a side"
    if device != "cpu":
        import torch

        where = f"{torch.cuda.get_device_name()}, {where}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {where}; Python {platform.python_version()}, {versions}. Load average at the end: {load}."


def processor() -> str:
    """The processor's name, and the instructions for bfloat16 that it has."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*: (.*)", text)
    family = re.search(r"cpu family\s*: (.*)", text)
    extensions = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return ", ".join(
        [f"{name[1] if name else platform.machine()} (family {family[1] if family else '?'})", *extensions]
    )


def write_report(text: str, output: Path | None) -> None:
    print(text)
    if output is not None:
        output.write_text(text, encoding="utf-8")
