"""From a name to a model folder: a local directory, packaged weights, the hub's cache, or the hub.

Nothing that is downloaded is ever run: only safetensors, JSON and tokenizer files are fetched.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embed_assets import models
from embed_assets.encoder.layout import ModelError, read_layout, read_model_json
from embed_assets.files import file_sha256

Origin = Literal["directory", "package", "cache", "hub"]
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*", "2_Normalize/*")
HUB_IGNORED = ("onnx/*", "openvino/*", "*.bin", "*.py", "*.md")


class ModelNotFoundError(ModelError):
    """No model of this name where models are looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """A model folder and what is known about it."""

    path: Path
    name: str
    """As it was asked for."""
    alias: str
    """The catalogue's short name, else the last part of the name."""
    spec: models.BaseModel | None
    revision: str
    """Commit on the hub, where it is known."""
    origin: Origin


def resolve(name: str, revision: str = "", *, download: bool = True) -> ResolvedModel:
    """Finds the model `name`: a path, an alias of the catalogue, or a name on the hub.

    Args:
        download: ask the hub when nothing on this machine has it.

    Raises:
        ModelNotFoundError: it is nowhere; says where it was looked for and what to do.
        ModelError: it is there and cannot be used.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        layout = read_layout(folder.absolute())
        alias = layout.spec.alias if layout.spec else folder.absolute().name
        return ResolvedModel(
            path=folder.absolute(), name=name, alias=alias, spec=layout.spec, revision=revision, origin="directory"
        )
    spec = models.known(name)
    if spec is None and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise ModelNotFoundError(
            f"no model {name!r}: it is neither a folder, nor one of {', '.join(models.CATALOGUE)}, nor a name on the "
            "hub such as organisation/model"
        )
    repository = spec.repository if spec else name
    wanted = revision or (spec.revision if spec else "")
    found = _packaged(spec) if spec and not revision else None
    if found is not None:
        return _resolved(found, name, spec, wanted, "package")
    cached = _snapshot(repository, wanted, local_files_only=True)
    if cached is not None:
        return _resolved(cached, name, spec, cached.name, "cache")
    if not download:
        raise ModelNotFoundError(f"model {name!r} ({repository}) is not on this machine; it would be downloaded")
    downloaded = _download(name, repository, wanted, spec)
    return _resolved(downloaded, name, spec, downloaded.name, "hub")


def _resolved(path: Path, name: str, spec: models.BaseModel | None, revision: str, origin: Origin) -> ResolvedModel:
    if spec is not None:
        found = read_model_json(path, "config.json").get("model_type")
        if found != spec.model_type:
            raise ModelError(
                f"{path} holds a model of type {found!r}; {spec.alias} ({spec.repository}) is a {spec.model_type!r}"
            )
    read_layout(path)
    alias = spec.alias if spec else name.rsplit("/", 1)[-1]
    return ResolvedModel(path=path, name=name, alias=alias, spec=spec, revision=revision, origin=origin)


def _packaged(spec: models.BaseModel) -> Path | None:
    """The folder of a Python package that carries the weights, checked against their known digest."""
    found = importlib.util.find_spec(spec.package) if spec.package else None
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0]) / "model"
    weights = path / "model.safetensors"
    if not weights.is_file():
        return None
    actual = file_sha256(weights)
    if spec.sha256 and actual != spec.sha256:
        raise ModelError(
            f"{weights} is not {spec.repository}: its sha256 is {actual}, known is {spec.sha256}; reinstall "
            f"the package {spec.package}"
        )
    return path


def _snapshot(repository: str, revision: str, *, local_files_only: bool) -> Path | None:
    """The hub's folder of one revision; None when the cache does not have it with its weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(HUB_FILES),
                ignore_patterns=list(HUB_IGNORED),
                local_files_only=local_files_only,
            )
        )
    except LocalEntryNotFoundError:
        return None
    complete = (found / "config.json").is_file() and any(found.glob("model*.safetensors"))
    return found if complete or not local_files_only else None


def _download(name: str, repository: str, revision: str, spec: models.BaseModel | None) -> Path:
    import httpx
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    looked = [f"folder {name}"]
    looked += [f"Python package {spec.package}"] if spec and spec.package else []
    looked += [f"cache {HF_HUB_CACHE}", f"hub {repository}"]
    try:
        found = _snapshot(repository, revision, local_files_only=bool(os.environ.get("HF_HUB_OFFLINE") == "1"))
        reason = "the hub cannot be reached"
    except (OfflineModeIsEnabled, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        found, reason = None, str(error).strip().splitlines()[0]
    if found is None:
        raise ModelNotFoundError(
            f"model {name!r} was not found ({reason}); looked for: {', '.join(looked)}. With a network it is "
            "downloaded by itself; without one, copy the model's folder to this machine and give its path"
        )
    return found
