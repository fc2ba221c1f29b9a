"""Passwords, keys and people's addresses, which must never reach a table, a model or an index.

detect-secrets judges; a cheap regular expression decides first whether it need be asked at all, since nearly every
file holds nothing that resembles a secret. Knows nothing of syntax and git.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

EMAIL_PLACEHOLDER = "EMAIL"

_SUSPICION = re.compile(
    r"A3T[A-Z0-9]|A[BCGINPRS][A-Z]{2}[A-Z0-9]{12}|PRIVATE KEY|gh[pousr]_|github_pat_|glpat-|gl[a-z]{2,5}-|xox[a-z]-|"
    r"hooks\.slack\.com|[sr]k_live_|[sr]k_test_|sk-[A-Za-z0-9]|eyJ[A-Za-z0-9_-]{8}|SG\.[A-Za-z0-9_-]|npm_[A-Za-z0-9]|"
    r"_authToken|pypi-|AccountKey|://[^/\s:@]+:[^/\s@]+@|(?:AC|SK)[0-9a-z]{32}|sq0csp|-us[0-9]{1,2}\b|"
    r"\b\d{8,10}:[0-9A-Za-z_-]{35}|[MNO][A-Za-z\d_-]{23,25}\.[A-Za-z\d_-]{6}\.|cloudant|softlayer|"
    r"(?i:secret|passw|passphrase|token|api_?-?key|private_?key|access_?key|credential|auth)"
)
_ASSIGNED = re.compile(
    r"(?i:secret|passw(?:or)?d|passphrase|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?|auth)\w*"
    r"[\"'\])]*\s*(?::\s*[\w<>\[\]&' ]+?\s*=|=>|:=|[:=(,]|==)\s*(?:Some\(|String::from\()?[\"'`]([^\"'`\s]{16,})[\"'`]"
)
"""What a variable, key or argument of a telling name is set to, if it is a literal of at least 16 characters."""
BASE64_ENTROPY_BITS = 4.5
HEX_ENTROPY_BITS = 3.0
"""Limits of detect-secrets' own defaults, in bits per character."""
_LOOKUP = re.compile(
    r"[${}<>()/\\ ]|\.\.|^[a-z]+([._-][a-z]+)*$|^[A-Z]+(_[A-Z]+)*$|example|test|dummy|fake|changeme", re.IGNORECASE
)
"""A path, a template, a name in words, or a confessed placeholder: no secret."""
_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][A-Za-z0-9._%+-]*@(?!(?:[A-Za-z0-9-]+\.)*(?:example|invalid|localhost|test)\b)"
    r"(?:[A-Za-z0-9-]+\.)+(?:com|org|net|edu|gov|info|dev|io|ai|app|co|me|eu|de|uk|fr|nl|ch|at|it|es|se|no|dk|fi|pl|cz|"
    r"ru|ua|jp|cn|kr|in|au|nz|br|ca|us|il|be|pt|hu|gr|ie|za|mx|ar|tw|hk|sg)\b(?!\s*[(\[.])"
)


def suspicious(text: str) -> bool:
    """Whether a text may hold a secret at all: cheap, and wrong only in the careful direction."""
    return _SUSPICION.search(text) is not None


def holds_secret(text: str) -> bool:
    """Whether a text holds a key, token or password. Keywords alone are not enough: the value must look random."""
    if not suspicious(text):
        return False
    if any(_random(value) for value in _ASSIGNED.findall(text)):
        return True
    return any(next(iter(plugin.analyze_string(text)), None) is not None for plugin in _plugins())


def without_addresses(text: str) -> str:
    """The text with people's e-mail addresses replaced; addresses of the reserved example domains stay."""
    return _EMAIL.sub(EMAIL_PLACEHOLDER, text) if "@" in text else text


def _random(value: str) -> bool:
    if _LOOKUP.search(value):
        return False
    base64, hexadecimal = _entropies()
    if re.fullmatch(r"[0-9a-fA-F-]+", value):
        return bool(hexadecimal.calculate_shannon_entropy(value) > HEX_ENTROPY_BITS)
    mixed = sum(bool(re.search(kind, value)) for kind in (r"[a-z]", r"[A-Z]", r"\d")) >= 2
    # Entropy cannot exceed the logarithm of the length: below 32 characters the limit follows it.
    limit = min(BASE64_ENTROPY_BITS, 3.5 + (len(value) - 16) / 16)
    return mixed and bool(base64.calculate_shannon_entropy(value) > limit)


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
        cloudant,
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
        softlayer,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )

    return (
        aws.AWSKeyDetector(),
        azure_storage_key.AzureStorageKeyDetector(),
        basic_auth.BasicAuthDetector(),
        cloudant.CloudantDetector(),
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
        softlayer.SoftlayerDetector(),
        square_oauth.SquareOAuthDetector(),
        stripe.StripeDetector(),
        telegram_token.TelegramBotTokenDetector(),
        twilio.TwilioKeyDetector(),
    )
