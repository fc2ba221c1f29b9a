"""Writes the commented settings file from the settings themselves, so that it never falls behind them."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from embed_assets import settings as settings_module
from embed_assets.settings import Section, Settings, derived_name

HEAD = """\
# Settings of embed_assets. A line that starts with # shows a default; remove the # to change it.
# Any of them can come from the environment: EMBED_ASSETS_TRAINING__EPOCHS=2. Secrets only do:
# EMBED_ASSETS_ADMIN_TOKEN, EMBED_ASSETS_API_KEY, EMBED_ASSETS_ALERTS__WEBHOOK_URL.
"""


def commented_settings(sources: Sequence[str]) -> str:
    """A TOML document that names every setting with its meaning and default, and the given repositories."""
    parts = [HEAD, *_plain_settings(), *_repositories(sources)]
    for name, field in Settings.model_fields.items():
        section = _section(field)
        if section is not None:
            parts.append(f"[{name}]\n" + "\n".join(_lines(section)) + "\n")
    return "\n".join(parts)


def field_docs(section: type[BaseModel]) -> dict[str, str]:
    """Field name -> the docstring written under it in the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = inspect.cleandoc(str(following.value.value))
            docs[statement.target.id] = text
    return docs


def _plain_settings() -> Iterator[str]:
    docs = field_docs(Settings)
    for name, field in Settings.model_fields.items():
        if _section(field) is None and name != "repositories":
            yield "\n".join(_setting(name, field, docs[name])) + "\n"


def _repositories(sources: Sequence[str]) -> Iterator[str]:
    section = settings_module.RepositorySettings
    docs = field_docs(section)
    yield "# One table for each repository.\n" + "\n".join(
        f"# {name}: {docs[name]}" for name in section.model_fields if docs[name]
    )
    for source in sources:
        yield f'[[repositories]]\nsource = "{_escaped(source)}"\nname = "{_escaped(derived_name(source))}"\n'
    if not sources:
        yield '# [[repositories]]\n# source = "/path/to/repository"\n'


def _lines(section: type[BaseModel]) -> Iterator[str]:
    docs = field_docs(section)
    for name, field in section.model_fields.items():
        yield from _setting(name, field, docs[name])


def _setting(name: str, field: FieldInfo, doc: str) -> Iterator[str]:
    yield from (f"# {line}" for line in doc.splitlines())
    default = field.get_default(call_default_factory=True)
    if default is None or default is PydanticUndefined:
        yield f"# {name} ="
    else:
        yield f"# {name} = {_toml(default)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{_escaped(str(value))}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _section(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
