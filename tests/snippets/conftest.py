"""Git repositories of the tests of this stage."""

from pathlib import Path

import pytest

from tests.snippets.made_repositories import make_repository


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Two commits: the second changes one of two files."""
    return make_repository(
        tmp_path / "shop",
        {
            "shop/cart.py": 'def total(cart):\n    """Adds up the cart."""\n    return sum(cart)\n',
            "shop/tax.py": "def tax(x):\n    return x\n",
        },
        {
            "shop/cart.py": 'def total(cart):\n    """Adds up the cart."""\n    return sum(item.price for item in cart)\n'
        },
    )
