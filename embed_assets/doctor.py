"""What a night needs from the machine, checked before it begins: each finding says what was found and what to do.

It looks, it changes nothing, and it imports torch only where the device is asked for explicitly.
"""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from embed_assets.checkpoints.warm_start import WarmStartError, configured_start
from embed_assets.encoder.resolve import ModelNotFoundError, resolve
from embed_assets.models import known
from embed_assets.settings import Settings, is_local_path
from embed_assets.snippets.grammars import check_grammars
from embed_assets.snippets.repositories import PACKAGE_PREFIX, RepositoryError, open_source
from embed_assets.store import Store

Level = Literal["ok", "warning", "error"]
GIBIBYTE = 1024**3
MINIMUM_GIT = (2, 25)
DISK_RESERVE_BYTES = GIBIBYTE
"""Room for repositories, tables and Dagster's storage, on top of the models."""
COPIES_IN_MEMORY = 4
"""The end of a training on a CPU holds 3.7 times the model's size in float32 (docs/training.md)."""
CHECKPOINTS_KEPT_AT_ONCE = 3
"""A night writes the candidate and the checkpoint beside the live one."""


class UnhealthyError(RuntimeError):
    """The machine lacks something that the night cannot do without."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    level: Level
    message: str

    @property
    def line(self) -> str:
        return f"{self.level:7}  {self.name}: {self.message}"


def _ok(name: str, message: str) -> Finding:
    return Finding(name=name, level="ok", message=message)


def _warning(name: str, message: str) -> Finding:
    return Finding(name=name, level="warning", message=message)


def _error(name: str, message: str) -> Finding:
    return Finding(name=name, level="error", message=message)


def examine(settings: Settings) -> list[Finding]:
    """Looks at everything, in the order a person would fix it."""
    examinations: Sequence[Callable[[Settings], Finding]] = (
        _git, _grammars, _device, _memory, _disk, _model, _repositories, _dagster_home,
    )  # fmt: skip
    return [*(examination(settings) for examination in examinations), *_warm_start(settings)]


def require_health(settings: Settings) -> list[Finding]:
    """The findings, when none is an error.

    Raises:
        UnhealthyError: naming every error and what to do about it.
    """
    findings = examine(settings)
    errors = [f"{finding.name}: {finding.message}" for finding in findings if finding.level == "error"]
    if errors:
        raise UnhealthyError("the machine is not ready for a night; " + "; ".join(errors))
    return findings


def _git(_: Settings) -> Finding:
    program = shutil.which("git")
    if program is None:
        return _error("git", "not found on PATH; install git 2.25 or newer")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    numbers = said.removeprefix("git version ").split()[0].split(".")[:2] if said else []
    if len(numbers) == 2 and all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < MINIMUM_GIT:
        return _error("git", f"{said} is too old; install git 2.25 or newer")
    return _ok("git", said or program)


def _grammars(_: Settings) -> Finding:
    broken = check_grammars()
    if broken:
        listed = "; ".join(f"{language}: {error}" for language, error in broken.items())
        return _error("grammars", f"{listed}; reinstall the tree-sitter packages")
    return _ok("grammars", "all languages parse")


def _device(settings: Settings) -> Finding:
    if importlib.util.find_spec("torch") is None:
        return _error("device", "torch is not installed; run `make install` or pip install torch")
    wanted = settings.training.device
    if wanted in ("auto", "cpu"):
        return _ok("device", f"{wanted}, {os.cpu_count()} CPU cores")
    import torch

    available = torch.cuda.is_available() if wanted == "cuda" else torch.backends.mps.is_available()
    if available:
        return _ok("device", wanted)
    hint = f"torch {torch.__version__} does not see it; set training.device to auto or cpu"
    if wanted == "cuda" and torch.version.cuda is None:
        hint = f"torch {torch.__version__} is a CPU build; install a CUDA build, or set training.device to cpu"
    return _error("device", f"training.device is {wanted!r}, but {hint}")


def _memory(settings: Settings) -> Finding:
    available = psutil.virtual_memory().available
    model = known(settings.model.name)
    needed = GIBIBYTE + COPIES_IN_MEMORY * 4 * (model.parameters if model is not None else 0)
    message = f"{available / GIBIBYTE:.1f} GiB available"
    if settings.training.device in ("auto", "cpu") and available < needed:
        wants = f"{message}, {settings.model.name} wants about {needed / GIBIBYTE:.1f} GiB; use a smaller model"
        return _warning("memory", wants)
    return _ok("memory", message)


def _disk(settings: Settings) -> Finding:
    folder = _existing_parent(settings.data_dir)
    free = shutil.disk_usage(folder).free
    model = known(settings.model.name)
    needed = DISK_RESERVE_BYTES + CHECKPOINTS_KEPT_AT_ONCE * 4 * (model.parameters if model is not None else 0)
    message = f"{free / GIBIBYTE:.1f} GiB free at {settings.data_dir}"
    if not os.access(folder, os.W_OK):
        return _error("disk", f"{folder} is not writable; choose another --data-dir")
    if free < needed:
        return Finding(
            name="disk",
            level="error",
            message=f"{message}, a night needs {needed / GIBIBYTE:.1f} GiB; free some or move data_dir",
        )
    return _ok("disk", message)


def _model(settings: Settings) -> Finding:
    try:
        resolved = resolve(settings.model.name, settings.model.revision, download=False)
    except ModelNotFoundError as error:
        offline = os.environ.get("HF_HUB_OFFLINE") == "1"
        if known(settings.model.name) is not None and not offline:
            return _warning("model", f"{settings.model.name} will be downloaded from the model hub")
        return _error("model", str(error))
    warning = resolved.spec.licence_warning if resolved.spec is not None else ""
    if warning:
        return _warning("model", warning)
    return _ok("model", f"{resolved.name} from {resolved.origin} {resolved.path}")


def _warm_start(settings: Settings) -> list[Finding]:
    """Nothing to say where training begins with none."""
    try:
        start = configured_start(settings)
    except WarmStartError as error:
        return [_error("warm start", str(error))]
    if start is None:
        return []
    found = f"the adapter of {start.start_id} for {start.base_name}, rank {start.rank}, in {start.path}"
    return [_ok("warm start", found)]


def _repositories(settings: Settings) -> Finding:
    if not settings.repositories:
        return _warning("repositories", "none configured; write a file with `embed-assets init`")
    failed = []
    for repository in settings.repositories:
        if is_local_path(repository.source) or repository.source.startswith(PACKAGE_PREFIX):
            try:
                open_source(repository, Store(settings.data_dir)).close()
            except RepositoryError as error:
                failed.append(f"{repository.name}: {error}")
    if len(failed) == len(settings.repositories):
        return _error("repositories", f"none can be read: {'; '.join(failed)}")
    if failed:
        return _warning("repositories", f"{'; '.join(failed)} (a night goes on with those that can be read)")
    return _ok("repositories", f"{len(settings.repositories)} configured")


def _dagster_home(settings: Settings) -> Finding:
    home = Path(os.environ.get("DAGSTER_HOME") or Store(settings.data_dir).dagster_home)
    if os.environ.get("DAGSTER_HOME") and not (home / "dagster.yaml").exists():
        return Finding(
            name="dagster home",
            level="error",
            message=f"DAGSTER_HOME={home} holds no dagster.yaml; unset it or put one there",
        )
    return _ok("dagster home", str(home))


def _existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
