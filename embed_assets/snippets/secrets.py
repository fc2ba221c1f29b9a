"""Passwords, keys and people's addresses, which must never reach a table, a model or an index.

detect-secrets judges; a cheap regular expression decides first whether it need be asked at all, since nearly every
file holds nothing that resembles a secret. Knows nothing of syntax and git.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

EMAIL_PLACEHOLDER = "EMAIL"

_SHAPES = (
    "AKIA", "ASIA", "ABIA", "ACCA", "A3T", "aws", "AWS", "AccountKey", "PRIVATE KEY", "ghp_", "gho_", "ghu_", "ghs_",
    "ghr_", "github_pat_", "glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "glcbt-", "glimt-", "glptt-", "glagent-",
    "gloas-", "GR1348941", "eyJ", "-us", "_authToken", "T3BlbkFJ", "pypi-", "SG.", "xox", "hooks.slack.com", "sq0csp-",
    "k_live_",
)  # fmt: skip
"""Every secret that a detector below finds holds one of these, or matches `_SHAPE`. Looked for as plain text, which
is a hundred times faster than the detectors' expressions."""
_SHAPE = re.compile(
    r"[MNO][\w-]{23,25}\.[\w-]{6}\.|\d{8,10}:[\w-]{35}|(?:AC|SK)[0-9a-z]{32}|://[^\s:/?#@\[\]]+:[^\s/?#@]+@"
)
_KEYWORDS = ("secret", "passw", "passphrase", "token", "key", "credential", "auth")
_ASSIGNED = re.compile(
    r"(?i:secret|passw(?:or)?d|passphrase|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?|auth)\w*"
    r"[\"'\])\\]*\s*(?::\s*[\w<>\[\]&' ]+?\s*=|=>|:=|[:=(,]|==)\s*(?:Some\(|String::from\()?"
    r"\\*[\"'`]([^\"'`\s\\]{16,})\\*[\"'`]"
)
"""What a variable, key or argument of a telling name is set to, if it is a literal of at least 16 characters; its quotes
may be escaped, as in JSON inside a string."""
BASE64_ENTROPY_BITS = 4.5
HEX_ENTROPY_BITS = 3.0
"""Limits of detect-secrets' own defaults, in bits per character."""
_LOOKUP = re.compile(
    r"[${}<>()\\ ]|://|\.\.|^(?:\./|~)|^[a-z]+([._-][a-z]+)*$|^[A-Z]+(_[A-Z]+)*$|example|test|dummy|fake|changeme",
    re.IGNORECASE,
)
"""A URL, a template, a name in words, or a confessed placeholder: no secret."""
_WORD = r"(?:(?:[a-z]+|[A-Z][a-z]+|[A-Z]+)(?:[A-Z][a-z]+)*\d{0,4}|\d{1,4})"
_STEP = re.compile(rf"[:@.*%]?{_WORD}(?:[-_.+:]{_WORD})*")
"""What a path holds between its slashes: plain words. A slash alone tells nothing, as half of all base64 texts of 32
random bytes hold one."""
_PLACEHOLDER = re.compile(
    r"[${}<>%*]|^.{0,3}$|^(?:.*_)?(?:my|your|some|the)?[-_]?(?:pass|passwd|password|passphrase|pw|pwd|secret|user|username|"
    r"postgres|mysql|root|admin|guest|test|tests|example|token|hunter2|foo|bar|baz|changeme)[\d_!]*$",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][A-Za-z0-9._%+-]*@(?!(?:[A-Za-z0-9-]+\.)*(?:example|invalid|localhost|test)\b)"
    r"(?:[A-Za-z0-9-]+\.)+(?:com|org|net|edu|gov|info|dev|io|ai|app|co|me|eu|de|uk|fr|nl|ch|at|it|es|se|no|dk|fi|pl|cz|"
    r"ru|ua|jp|cn|kr|in|au|nz|br|ca|us|il|be|pt|hu|gr|ie|za|mx|ar|tw|hk|sg)\b(?!\s*[(\[]|\.\w)"
)


def suspicious(text: str) -> bool:
    """Whether a text may hold a secret at all: cheap, and wrong only in the careful direction."""
    return _shaped(text) or _has_keyword(text)


def holds_secret(text: str) -> bool:
    """Whether a text holds a key, token or password. A telling name alone is not enough: its value must look random."""
    if _has_keyword(text) and any(_random(value) for value in _ASSIGNED.findall(text)):
        return True
    return _shaped(text) and any(_finds(plugin, text) for plugin in _plugins())


def _finds(plugin: Any, text: str) -> bool:
    """URLs with a user and a password fill tests and manuals: `user:password@` tells nothing."""
    found = plugin.analyze_string(text)
    if plugin.secret_type == "Basic Auth Credentials":
        return any(not _PLACEHOLDER.search(password) for password in found)
    return next(iter(found), None) is not None


def _shaped(text: str) -> bool:
    return any(shape in text for shape in _SHAPES) or _SHAPE.search(text) is not None


def _has_keyword(text: str) -> bool:
    lowered = text.lower()
    return any(keyword in lowered for keyword in _KEYWORDS)


def without_addresses(text: str) -> str:
    """The text with people's e-mail addresses replaced; addresses of the reserved example domains stay."""
    return _EMAIL.sub(EMAIL_PLACEHOLDER, text) if "@" in text else text


def _random(value: str) -> bool:
    if _LOOKUP.search(value) or _is_path(value):
        return False
    base64, hexadecimal = _entropies()
    if re.fullmatch(r"[0-9a-fA-F-]+", value):
        return bool(hexadecimal.calculate_shannon_entropy(value) > HEX_ENTROPY_BITS)
    mixed = sum(bool(re.search(kind, value)) for kind in (r"[a-z]", r"[A-Z]", r"\d")) >= 2
    # Entropy cannot exceed the logarithm of the length: below 32 characters the limit follows it.
    limit = min(BASE64_ENTROPY_BITS, 3.5 + (len(value) - 16) / 16)
    return mixed and bool(base64.calculate_shannon_entropy(value) > limit)


def _is_path(value: str) -> bool:
    return "/" in value and all(_STEP.fullmatch(step) for step in value.strip("/").split("/"))


@functools.cache
def _entropies() -> tuple[Any, Any]:
    from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString, HexHighEntropyString

    return Base64HighEntropyString(), HexHighEntropyString()


@functools.cache
def _plugins() -> Sequence[Any]:
    """Detectors of keys with a shape of their own. Left out: those that judge by keyword or entropy alone (too many
    honest lines), and public IP addresses."""
    from detect_secrets.plugins import (
        aws,
        azure_storage_key,
        basic_auth,
        discord,
        github_token,
        gitlab_token,
        jwt,
        mailchimp,
        npm,
        openai,
        private_key,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )

    return (
        aws.AWSKeyDetector(),
        azure_storage_key.AzureStorageKeyDetector(),
        basic_auth.BasicAuthDetector(),
        discord.DiscordBotTokenDetector(),
        github_token.GitHubTokenDetector(),
        gitlab_token.GitLabTokenDetector(),
        jwt.JwtTokenDetector(),
        mailchimp.MailchimpDetector(),
        npm.NpmDetector(),
        openai.OpenAIDetector(),
        private_key.PrivateKeyDetector(),
        pypi_token.PypiTokenDetector(),
        sendgrid.SendGridDetector(),
        slack.SlackDetector(),
        square_oauth.SquareOAuthDetector(),
        stripe.StripeDetector(),
        telegram_token.TelegramBotTokenDetector(),
        twilio.TwilioKeyDetector(),
    )
