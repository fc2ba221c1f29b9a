"""Known shapes of secrets are found, honest code is not, and people's addresses go.

The secrets are put together at run time: no scanner shall find them in this file.
"""

import base64
import json
import random

import pytest

from embed_assets.snippets.parse import parse
from embed_assets.snippets.secrets import holds_secret, suspicious, without_addresses

RANDOM = "q7Xw2Zp9Lk4Vb8Nd3Rt6Yh1Mc5Gs0Jf"
SECRETS = {
    "aws": "key = '" + "AKIA" + "IOSFODNN7QWERTY1" + "'",
    "github": "gh" + "p_" + (RANDOM * 2)[:36],
    "gitlab": "glpat" + "-" + RANDOM[:20],
    "slack": "xox" + "b-" + "123456789012-123456789012-" + RANDOM[:24],
    "stripe": "sk" + "_live_" + RANDOM[:24],
    "private_key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow",
    "jwt": "ey"
    + "JhbGciOiJIUzI1NiJ9."
    + "eyJzdWIiOiIxMjM0NTY3ODkwIn0."
    + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "url": "postgres://shop:" + RANDOM[:14] + "@db.internal/shop",
    "assigned": f'API_KEY = "{RANDOM}"',
    "base64": f'API_KEY = "{RANDOM[:10]}/{RANDOM[10:19]}/{RANDOM[19:]}Kp4Wz6Tn+Q="',
    "base64_from_a_slash": f'API_KEY = "/{RANDOM}{RANDOM[5:12]}+x4="',
    "argument": f"connect(password='{RANDOM}')",
    "json": f'{{"client_secret": "{RANDOM}"}}',
    "typed": f'const token: string = "{RANDOM}"',
    "hash": 'secret_key_base: "' + "9f86d081884c7d659a2feaa0c55ad015" * 2 + '"',
}


@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_secrets_are_found(kind: str) -> None:
    text = f"def f():\n    {SECRETS[kind]}\n"
    assert suspicious(text)
    assert holds_secret(text)


@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_a_definition_that_holds_one_is_dropped_and_counted(kind: str) -> None:
    literal = repr(SECRETS[kind])
    parsed = parse(f"def honest():\n    return 1\n\ndef leaky():\n    return {literal}\n".encode(), "python")
    assert [one.name for one in parsed.definitions] == ["honest"]
    assert parsed.secrets == 1


@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_secrets_are_found_inside_string_literals(kind: str) -> None:
    assert holds_secret(f"SETTINGS = {json.dumps(SECRETS[kind])}")
    assert holds_secret(f"SETTINGS = {json.dumps(json.dumps(SECRETS[kind]))}")


@pytest.mark.parametrize(
    "text",
    [
        "password = 'password'",
        'token = "application/x-www-form-urlencoded"',
        "tokenizer = 'WordPieceTokenizerFast'",
        "connect('postgres://user:password@localhost/test')",
        "url = f'https://{user}:{password}@{host}/'",
        'api_key = os.environ["SHOP_API_KEY_PRODUCTION"]',
        "auth_header = 'authorization-token-header'",
        "key = 'some.dotted.configuration.name'",
        "secret = 'example-secret-1234567890abcdef'",
        "def authenticate(user, password): return check(user, password)",
    ],
)
def test_honest_code_stays(text: str) -> None:
    assert not holds_secret(text)


def test_random_bytes_are_found_and_paths_are_not() -> None:
    """Half of all base64 texts of 32 bytes hold a slash, and every path does."""
    chance = random.Random(0)
    keys = [base64.b64encode(chance.randbytes(32)).decode() for _ in range(400)]
    assert sum("/" in key for key in keys) > 150
    assert sum(not holds_secret(f'API_KEY = "{key}"') for key in keys) <= 2, "a text may repeat letters by chance"
    for path in (
        "/v1/OAuth2/tokenByKey",
        "config/Jwt/publicKeys4.xml",
        "./Qz4/xKey_public.md",
        "~/Qz4/xKey_public.md",
        "https://login.engine.dev/OAuth2/Authorize?client=Q7x",
    ):
        assert not holds_secret(f'access_token = "{path}"'), path


def test_addresses_go_and_code_that_looks_like_one_stays() -> None:
    assert without_addresses("by Ada <ada.l@engine.co.uk>") == "by Ada <EMAIL>"
    for text in ("x@w.to(device)", "a @ b.T", "user@example.com", "git@localhost", "@decorator.dev", "a@b"):
        assert without_addresses(text) == text


def test_addresses_leave_code_doc_and_signature() -> None:
    source = b'def f(to="cy@engine.org"):\n    """Ask ada@engine.org."""\n    return "bob@engine.org"\n'
    (definition,) = parse(source, "python").definitions
    assert "engine" not in definition.code + definition.doc + definition.signature
    assert definition.signature == 'def f(to="EMAIL")'
