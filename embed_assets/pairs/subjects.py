"""A commit's subject as a query: what the author said the change is about, without prefixes, numbers and ceremony.

Commits that say nothing of the code's purpose are refused with a reason: merges and reverts (their parents count,
which `history` knows), bots, releases, formatting sweeps, fixups, and subjects of too few words.
"""

import re

from embed_assets.pairs.wording import Cleaned, content_words, one_line
from embed_assets.snippets.secrets import holds_secret
from embed_assets.unspaced import bigrams

LEAST_WORDS = 4
"""Words of a cleaned subject; below it ("fix tests", "Update docs again") no function in particular is meant."""
LEAST_CONTENT_WORDS = 3

_CONVENTIONAL = re.compile(
    r"^(?:feat|feature|fix|bugfix|hotfix|refactor|refact|perf|style|docs?|tests?|chore|build|ci|revert|wip|improvement|types?|deps)"
    r"(?:\(([^)]*)\))?!?:\s*",
    re.IGNORECASE,
)
_AREA = re.compile(r"^(?:[\w./-]+:|\([\w./-]+\):?)\s+")
_TICKET_PREFIX = re.compile(r"^\[?(?:[A-Z][A-Z0-9]+-\d+|GH-\d+|#\d+)\]?\s*[:\-]?\s*")
_TAG_PREFIX = re.compile(r"^(?:\[[^\]]{1,40}\]\s*)+[:\-]?\s*")
_REFERENCE = re.compile(
    r"""[\[(]?\s*
        (?:(?:clos(?:e|es|ed)|fix(?:es|ed)?|resolv(?:e|es|ed)|refs?|references|see(?:\ also)?|related\ to|re|via|per|in
              |from):?\s+)?
        (?:(?:issues?|tickets?|pr|pull\ request|bug)\s*)?
        (?:(?:[\w.-]+/[\w.-]+)?\#\d+|\bGH-\d+|https?://\S+)
        (?:\s*(?:,|and|&)\s*(?:\#\d+|GH-\d+))*
        \s*[\])]?""",
    re.IGNORECASE | re.VERBOSE,
)
_SKIP_CI = re.compile(r"\[(?:skip ci|ci skip|no ci|skip changelog)\]", re.IGNORECASE)
_EMOJI = re.compile(r":[a-z0-9_+]+:|[\U0001F000-\U0001FAFF\u2600-\u27BF\uFE0F]")
_HASH_OR_ADDRESS = re.compile(r"<[^<>\s]+@[^<>\s]+>|\b[\w.+-]+@[\w-]+\.[\w.]+\b|\b[0-9a-f]{10,40}\b")

_REVERT = re.compile(r"^\W*(?:revert|back(?:ed)? out|undo|reapply)\b", re.IGNORECASE)
_MERGE = re.compile(
    r"^\W*merged?\b(?:$|\s+(?:with|from|in|into|of|the|remote-tracking|remote|upstream|pull|pr|branch|branches|commit|tag|master"
    r"|main|trunk|develop|#\d+|['\"]?[\w.-]+/\S+)\b)",
    re.IGNORECASE,
)
_FIXUP = re.compile(r"^(?:fixup!|squash!|amend!|wip\b|temp\b|tmp\b|checkpoint\b)", re.IGNORECASE)
_RELEASE = re.compile(
    r"""^\W*(?:
        (?:bump|upgrade|update|set|change|increase|prepare)s?\b[\w\s]{0,25}\b(?:versions?|dependency|dependencies|deps)\b
        | (?:bump|upgrade)s?\s+\S+\s+(?:from|to)\b
        | updates?\s+\S+\s+(?:from|to)\s+v?\d
        | (?:prepare|preparing|cut|tag|start|begin|back\ to|post)\b.{0,25}\b(?:release|development|dev|version)\b
        | (?:release|version|tagging|v)\s*:?\s*v?\d+\.\d
        | v?\d+\.\d+(?:\.\d+)?\S*\s*$
        | \[maven-release-plugin\] | \[release
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_FORMATTING = re.compile(
    r"""^\W*(?:(?:run|apply|use|add|fix(?:es|ed)?|correct|auto)?[\s-]*
               (?:an?|some|(?:a\ )?few|more|minor|small|several|various)?[\s-]*)?
        (?:black|isort|gofmt|go\ fmt|goimports|rustfmt|cargo\ fmt|mix\ format|prettier|clang-format|eslint|flake8|ruff
           |pep-?8|pyupgrade|autopep8|lint(?:er|ing|s)?|clippy|format(?:ting|ter)?|reformat|white\ ?space
           |indent(?:ation)?|code\ style|style\ fix(?:es)?)\b(?=.{0,40}$)
        | ^\W*(?:fix(?:es|ed)?|correct)\s+(?:an?|some|(?:a\ )?few|more|minor|small|several|various)?\s*
          (?:typos?|spelling)\b(?=.{0,60}$)""",
    re.IGNORECASE | re.VERBOSE,
)
_ABOUT_TEXT = re.compile(
    r"""^\W*(?:(?:\w+:\s+)?(?:add(?:s|ed)?|update[sd]?|fix(?:es|ed)?|improve[sd]?|tweak(?:s|ed)?|clarif(?:y|ies|ied)|migrate
        |correct(?:s|ed)?|clean\ ?up|rewrite|reword(?:s|ed)?|expand(?:s|ed)?|polish(?:es|ed)?|mention)\s+)
        (?:(?!\b(?:and|with|but|so|when|if|add|fix)\b)[^,;:]){0,40}
        \b(?:change\ ?log|changes?\ file|readme|release\ notes|doc\ ?strings?|documentation|docs?|comments?|javadocs?
           |moduledocs?|(?:type)?specs?|copyright|licen[cs]e\ headers?)\b
        (?:(?!\b(?:but|so|and\ (?:fix|add|remove|make|allow|support|use|change|move|raise|error)\w*)\b)[^,;]){0,45}$""",
    re.IGNORECASE | re.VERBOSE,
)
"""Changes what is written about code; the code that changed with it is a side effect."""
_UPKEEP = re.compile(
    r"""^\W*(?:\w+:\s+)?(?:
        (?:address(?:e[sd]|ing)?|incorporat(?:e[sd]?|ing)|appl(?:y|ied)|respond(?:ed)?\ to|implement(?:ed)?)\b
            .{0,20}\breview\b.{0,30}$
        | (?:fix(?:e[sd])?|silence[sd]?|remove[sd]?|delete[sd]?|suppress(?:ed)?|resolve[sd]?|clean\ ?up)\s+
            (?:(?!and\b)[\w-]+\s+){0,3}(?:warnings|lints?|todos?|fixmes?)\b.{0,12}$
        | (?:add(?:s|ed)?|fix(?:e[sd])?|update[sd]?|improve[sd]?|more|clean\ ?up|refactor(?:ed)?|rewrite|rewrote)\s+
            (?:(?!and\b)[\w-]+\s+){0,3}(?:(?:unit\ ?)?tests|unit\ ?test|test\ (?:cases?|suite|coverage|for))\b
            (?:(?!\b(?:and|but)\b)[^,;]){0,60}$
        | (?:unit\ ?)?tests?\ for\b(?:(?!\b(?:and|but)\b)[^,;]){0,60}$
        | fix(?:e[sd])?\s+(?:the\s+)?(?:broken\s+)?(?:build|ci|travis)\b.{0,25}$
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""Reviews, warnings, tests and builds: true of whatever code happened to be touched."""
_LEFT_HANGING = re.compile(
    r"(?:[\s.,;:]+(?:to|for|and|or|this|that|it|which|should|as|see|in|of|by|with|from|the|an?|per|via|also|will|may))+[\s.,;:]*$",
    re.IGNORECASE,
)
"""What a reference leaves behind when it is cut: "... to be removed. This should" (fix #12)."""
_BOT = re.compile(
    r"\[bot\]|\bdependabot\b|\brenovate\b|\bgreenkeeper\b|\bsnyk-bot\b|\bpyup-bot\b|\bgithub-actions\b|\bpre-commit-ci\b"
    r"|\ballcontributors\b|\bmergify\b|\bweblate\b|\bcrowdin\b|\bcopybara\b|\bsemantic-release-bot\b|\brelease-please\b",
    re.IGNORECASE,
)


def written_by_bot(author: str) -> bool:
    """Whether a commit's author (name and address) is a known program."""
    return bool(_BOT.search(author))


def subject_query(subject: str) -> Cleaned:
    """The query that a subject makes, or why it makes none: `subject_revert`, `subject_merge`, `subject_fixup`,
    `subject_release`, `subject_formatting`, `subject_about_text`, `subject_upkeep`, `subject_too_short`,
    `query_holds_secret`."""
    subject = one_line(subject)
    if holds_secret(subject):  # Looked for before anything is cut out: half a key is still a key, and hard to know.
        return Cleaned("", "query_holds_secret")
    for pattern, reason in (
        (_REVERT, "subject_revert"),
        (_MERGE, "subject_merge"),
        (_FIXUP, "subject_fixup"),
        (_RELEASE, "subject_release"),
    ):
        if pattern.search(subject):
            return Cleaned("", reason)
    text = _stripped(subject)
    if _RELEASE.search(_AREA.sub("", text)):
        return Cleaned("", "subject_release")
    if _FORMATTING.search(_AREA.sub("", text)):
        return Cleaned("", "subject_formatting")
    if _ABOUT_TEXT.search(text):
        return Cleaned("", "subject_about_text")
    if _UPKEEP.search(text):
        return Cleaned("", "subject_upkeep")
    words = [part for word in text.split() for part in bigrams(word)]
    if len(words) < LEAST_WORDS or len(set(content_words(text))) < LEAST_CONTENT_WORDS:
        return Cleaned("", "subject_too_short")
    return Cleaned(text)


def _stripped(subject: str) -> str:
    text = _EMOJI.sub(" ", _SKIP_CI.sub(" ", subject)).strip()
    text = _TICKET_PREFIX.sub("", text)
    text = _TAG_PREFIX.sub("", text)
    text = _CONVENTIONAL.sub(lambda found: f"{found[1]}: " if found[1] else "", text)
    without = _HASH_OR_ADDRESS.sub(" ", _REFERENCE.sub(" ", text)).rstrip()
    if not text.endswith(without):
        without = _LEFT_HANGING.sub("", without)
    return one_line(without.replace("`", "")).strip(" .:;,-–")
