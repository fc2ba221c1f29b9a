"""Path globs as .gitignore and .gitattributes read them.

`*` stays inside one folder, `**` crosses folders, a pattern without a slash matches in every folder, and a pattern
that names a folder matches everything below it.
"""

import re
from collections.abc import Iterable


def compile_glob(glob: str, folder: str = "") -> re.Pattern[str]:
    """Regular expression for POSIX paths of a tree; `folder` is where the glob counts from."""
    anchored = "/" in glob.rstrip("/")
    pattern = "" if anchored else "(?:.*/)?"
    base = re.escape(folder) + "/" if folder else ""
    return re.compile(f"^{base}{pattern}{_translate(glob.strip('/'))}(?:/.*)?$", re.DOTALL)


def any_match(patterns: Iterable[re.Pattern[str]], path: str) -> bool:
    return any(pattern.match(path) for pattern in patterns)


def _translate(glob: str) -> str:
    parts, position = [], 0
    while position < len(glob):
        rest = glob[position:]
        if rest.startswith("**/"):
            token, expression = "**/", "(?:.*/)?"
        elif rest.startswith("**"):
            token, expression = "**", ".*"
        elif rest[0] in "*?":
            token, expression = rest[0], "[^/]*" if rest[0] == "*" else "[^/]"
        elif (group := re.match(r"\[(!?)([^\]]+)\]", rest)) is not None:
            members = re.sub(r"([\\[^&~|])", r"\\\1", group[2])
            token, expression = group[0], f"[^{members}]" if group[1] else f"[{members}]"
        else:
            token, expression = rest[0], re.escape(rest[0])
        parts.append(expression)
        position += len(token)
    return "".join(parts)
