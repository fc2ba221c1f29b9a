"""A definition's documentation as a query: its first paragraph, without examples, parameters and markup.

Examples go because they call the function by name (up to two thirds of docs contain one), parameters because they
repeat the signature. What is left must say something: too short and boilerplate docs are refused with a reason.
"""

import re

from embed_assets.pairs.wording import Cleaned, content_words, one_line

LEAST_WORDS = 4
"""Content words of a doc below which it fits many functions equally well ("Returns the value.")."""
MOST_WORDS = 60
"""Longer first paragraphs are cut after the last sentence that fits: nobody asks in 200 words."""

_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_BLOCK_TAG = re.compile(r"<(pre|code|table|ul|ol)\b[^>]*>.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_INLINE_CODE_TAG = re.compile(r"<(code|tt|b|i|em|strong)>([^<\n]*)</\1>", re.IGNORECASE)
_HTML_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_PARAGRAPH_TAG = re.compile(r"</?(p|br|hr|li|h\d)\s*/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")

_SECTION = re.compile(
    r"""^\s*(?:
        [#*=_\s]*\**(?:examples?|usage|args?|arguments?|param(?:eter)?s?|other\ parameters|attributes|returns?|yields?
            |raises?|errors?|panics?|safety|throws?|exceptions?|notes?|see\ also|references?|options?|todo|doctests?
            |keyword\ arguments|warnings?|since|deprecated)\**\s*(?:[:=#*-]+.*|)$
        | [:@\\](?:param|arg|type|return|returns|rtype|raise|raises|throws|see|since|deprecated|author|example
            |template|typeparam|var|ivar|exception|private|internal|hidden|inheritdoc|tparam|group|category)\b
        | (?:>>>|iex(?:\(\d+\))?>|irb>|\$\ |>\ )
        | \.\.\ +[\w:-]+
        | [-=~^*_]{3,}\s*$
        | \|
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_SIGNATURE = re.compile(r"^\s*[\w.:!?]+\s*\([^)]*\)\s*(?:->.*|=>.*|:|)\s*$")
_HEADING = re.compile(r"^\s*(?:#{1,6}\s|=+\s)")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")

_ROLE = re.compile(r":[a-zA-Z][\w:+.-]*:`(?:[^`<]*<)?[~!]?([^`<>]*)>?`")
_LEADING_TAG = re.compile(
    r"^(?:[@\\](?:brief|short|summary|desc(?:ription)?|details|fn|experimental|module|public|beta|alpha|api|remarks)\b[:\s]*)+"
)
"""Tags that announce the text instead of adding to it."""
_JAVADOC_INLINE = re.compile(r"\{@\w+\s*([^{}]*)\}")
_MARKDOWN_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])?")
_URL = re.compile(r"\b(?:https?|ftp)://\S+")
_MARKUP = re.compile(r"[`*]+|(?<!\w)_+(?=\w)|(?<=\w)_+(?!\w)")
_DANGLING_SECTION = re.compile(
    r"(?<=[.!?])\s+(?:Args|Arguments|Parameters|Params|Examples?|Returns|Usage|Options)\s*:?$"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(`])")

_BOILERPLATE = re.compile(
    r"""^(?:
        (?:see|same\ as|alias(?:\ (?:for|of|to))?|like|equivalent\ to|synonym|implementation\ (?:for|of)
            |shorthand\ for|wrapper\ (?:for|around))\b(?=.{0,60}$)
        | (?:todo|fixme|xxx|hack)\b
        | (?:@experimental\W+)?\S+\ is\ an\ experimental\ feature\b
        | deprecated\b | \W*copyright\b | \(c\) | spdx-license | licensed\ under
        | (?:eslint|tslint|prettier|noqa|pylint|type:\ ?ignore|nolint|go:|swagger|istanbul|c8\ ignore|@ts-)
        | \{?@?inherit(?:ed)?\s*-?doc | (?:auto-?)?generated\b | non-javadoc | \(non-javadoc
        | (?:default\ )?(?:constructor|destructor|getter|setter|initiali[sz]er)\b(?=.{0,40}$)
        | (?:internal|private)(?:\ use)?(?:\ only)?\.?$
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def doc_query(doc: str) -> Cleaned:
    """The query that a doc makes, or why it makes none: `doc_missing`, `doc_boilerplate`, `doc_too_short`."""
    if not doc.strip():
        return Cleaned("", "doc_missing")
    paragraph = _first_paragraph(_without_blocks(doc))
    text = _inline(paragraph)
    if _BOILERPLATE.match(paragraph) or _BOILERPLATE.match(text):
        return Cleaned("", "doc_boilerplate")
    if paragraph.endswith(":"):
        text = _without_introduction(text)
    text = _shortened(text)
    if len(set(content_words(text))) < LEAST_WORDS:
        return Cleaned("", "doc_too_short")
    return Cleaned(text)


def _without_blocks(doc: str) -> str:
    doc = _HTML_COMMENT.sub(" ", _FENCE.sub("\n\n", doc))
    doc = _INLINE_CODE_TAG.sub(r"\2", doc)
    doc = _BLOCK_TAG.sub("\n\n", doc)
    return _TAG.sub(" ", _PARAGRAPH_TAG.sub("\n\n", doc))


def _first_paragraph(doc: str) -> str:
    """Lines up to the first blank line or section; leading headings and repeated signatures are stepped over."""
    paragraph: list[str] = []
    for line in doc.splitlines():
        if _SECTION.match(line):
            if paragraph or not _RULE.match(line):
                break
            continue
        if not line.strip():
            if paragraph:
                break
            continue
        if not paragraph and (_HEADING.match(line) or _SIGNATURE.match(line)):
            continue
        if paragraph and _LIST_ITEM.match(line):
            break
        paragraph.append(line.strip())
    return " ".join(paragraph)


_RULE = re.compile(r"^\s*(?:[-=~^*_]{3,}\s*$|\.\.\ +[\w:-]+)")
"""A line that only decorates, or a directive: before the first paragraph it is stepped over, after it it ends it."""


def _inline(text: str) -> str:
    text = _ROLE.sub(lambda found: found[1].rsplit(".", 1)[-1], _LEADING_TAG.sub("", text))
    text = _JAVADOC_INLINE.sub(lambda found: found[1].replace("#", " ").strip(), text)
    text = _URL.sub(" ", _MARKDOWN_LINK.sub(r"\1", text))
    return _DANGLING_SECTION.sub("", one_line(_MARKUP.sub("", text))).rstrip(":").strip()


def _without_introduction(text: str) -> str:
    """Without a last sentence that only announced the list or the example that was cut."""
    sentences = _SENTENCE_END.split(text)
    return " ".join(sentences[:-1]) if len(sentences) > 1 else text


def _shortened(text: str) -> str:
    if len(text.split()) <= MOST_WORDS:
        return text
    kept: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        if kept and len(" ".join([*kept, sentence]).split()) > MOST_WORDS:
            break
        kept.append(sentence)
    return " ".join(" ".join(kept).split()[:MOST_WORDS])
