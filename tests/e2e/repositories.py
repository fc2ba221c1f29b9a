"""Real code for whole nights: an installed package's documented functions, as a git repository of its own.

`shuffled` gives the learning side the docs of other functions while the judging side keeps its own: a night on it
trains with the real pipeline and must end with a worse model.
"""

import ast
import random
import subprocess
from importlib.util import find_spec
from pathlib import Path

from embed_assets.pairs.sides import Sides

AUTHOR = ("-c", "user.name=A Person", "-c", "user.email=person@example.com")


def package_repository(folder: Path, package: str, *, most_files: int, shuffled: bool = False) -> Path:
    """A git repository with one commit: the first `most_files` files of `package` that document a function.

    The same arguments give the same tree. The repository is called after `folder`.
    """
    folder.mkdir(parents=True)
    texts = dict(_documented_files(package)[:most_files])
    if shuffled:
        learnt = [name for name in texts if Sides().of_file(folder.name, name) != "test"]
        texts |= _with_shuffled_docs({name: texts[name] for name in learnt})
    for name, text in texts.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    commit_all(folder, "Add the package")
    return folder


def commit_all(folder: Path, message: str) -> None:
    for arguments in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("commit", "--quiet", "-m", message),
    ):
        subprocess.run(["git", "-C", str(folder), *AUTHOR, *arguments], check=True, capture_output=True)


def _documented_files(package: str) -> list[tuple[str, str]]:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        name = f"{package}/{path.relative_to(root).as_posix()}"
        text = path.read_text(encoding="utf-8")
        if "/tests/" not in name and len(_docs(text)) >= 2:
            found.append((name, text))
    return found


def _docs(text: str) -> list[ast.Constant]:
    """Docstring nodes of functions, in order."""
    docs = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and isinstance(node.body[0], ast.Expr):
            value = node.body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and len(node.body) > 1:
                docs.append(value)
    return sorted(docs, key=lambda doc: doc.lineno)


def _with_shuffled_docs(texts: dict[str, str]) -> dict[str, str]:
    """Every docstring's first paragraph goes to another function, in another file as a rule."""
    paragraphs = [
        " ".join(str(doc.value).strip().split("\n\n")[0].split()) for text in texts.values() for doc in _docs(text)
    ]
    order = list(range(len(paragraphs)))
    random.Random(7).shuffle(order)
    given = iter([paragraphs[place] for place in order])
    result = {}
    for name, text in texts.items():
        lines = text.split("\n")
        replacements = [(doc, next(given)) for doc in _docs(text)]
        for doc, paragraph in reversed(replacements):
            assert doc.end_lineno is not None
            indent = " " * doc.col_offset
            safe = paragraph.replace("\\", "").replace('"', "'")
            lines[doc.lineno - 1 : doc.end_lineno] = [f'{indent}"""{safe}"""']
        result[name] = "\n".join(lines)
        ast.parse(result[name])
    return result
