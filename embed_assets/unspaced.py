"""Scripts written without spaces (Chinese, Japanese, Thai): two characters in a row count as a word.

Overlapping bigrams are what Lucene's CJKAnalyzer indexes. Other texts pass through untouched.
"""

import re

UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Hiragana, Katakana, Han: ranges of a character class in a regular expression."""
_RUN = re.compile(f"[{UNSPACED}]+")


def bigrams(word: str) -> list[str]:
    """`word` itself, with each run of an unspaced script in it as overlapping pairs of characters.

    >>> bigrams("路径长度")
    ['路径', '径长', '长度']
    >>> bigrams("path")
    ['path']
    """
    parts: list[str] = []
    end = 0
    for run in _RUN.finditer(word):
        parts.append(word[end : run.start()])
        text = run[0]
        parts.extend([text] if len(text) == 1 else (text[at : at + 2] for at in range(len(text) - 1)))
        end = run.end()
    parts.append(word[end:])
    return [part for part in parts if part]
