"""A shop's repository, whose every commit changes one function and says so in words of its own."""

from pathlib import Path

from embed_assets.settings import Settings
from tests.pairs.written_history import WrittenHistory

TOPICS = [
    "invoice",
    "parcel",
    "voucher",
    "basket",
    "refund",
    "courier",
    "pallet",
    "tariff",
    "ledger",
    "coupon",
    "shelf",
    "barcode",
]
VERBS = ["validates", "archives", "forwards", "rejects", "schedules", "splits"]
MODULES = 12


def module(topic: str, state: dict[str, int]) -> str:
    """A file of six documented functions; `state` holds what each function's constant is by now."""
    parts = []
    for verb in VERBS:
        name = f"{verb}_{topic}"
        parts.append(
            f"def {name}(rows, limit):\n"
            f'    """{verb.capitalize()} every {topic} whose {verb}ing deadline passed before the {topic} run."""\n'
            f"    chosen_{verb} = [{topic} for {topic} in rows if {topic}.{verb}_count > {state.get(name, 0)}]\n"
            f"    {topic}_limit = min(limit, len(chosen_{verb}) * {len(verb) * 7 + len(topic)})\n"
            f"    return {verb}_report(chosen_{verb}, {topic}_limit)\n"
        )
    return "\n\n".join(parts)


class Shop:
    """A history in which every commit changes one function and says so in words of its own."""

    def __init__(self, written: WrittenHistory) -> None:
        self.written = written
        self.state: dict[str, int] = {}
        self.commits = 0
        written.commit("Begin", {f"src/{topic}.py": module(topic, self.state) for topic in TOPICS})

    def go_on(self, commits: int) -> None:
        for _ in range(commits):
            self.commits += 1
            topic, verb = TOPICS[self.commits % 12], VERBS[self.commits // 12 % 6]
            name = f"{verb}_{topic}"
            self.state[name] = self.state.get(name, 0) + 1
            subject = (
                f"Count overdue step{self.commits} alpha{self.commits * 7} in monthly beta{self.commits * 13} totals"
            )
            self.written.commit(subject, {f"src/{topic}.py": module(topic, self.state)})
        self.written.write()


def settings_for(*sources: Path | str, **pairs: object) -> Settings:
    document = {
        "repositories": [{"source": str(source)} for source in sources],
        "pairs": {"test_queries": 20, "guard_queries": 200, **pairs},
    }
    return Settings.model_validate(document)
