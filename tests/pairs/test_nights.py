"""Whole lives of a repository in memory: whatever is committed, no night asks for what it or an earlier one learnt."""

import random
from collections import Counter
from dataclasses import dataclass, field

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_assets.pairs.changes import ChangedFunction, CommitQuery
from embed_assets.pairs.corpus import Corpus, Function, definition_id_at
from embed_assets.pairs.history import Commit, History
from embed_assets.pairs.leakage import find_leaks, lineage_leaks
from embed_assets.pairs.negatives import held_out_contents
from embed_assets.pairs.separation import Sketches, merge_repeated, separate, without_learnt
from embed_assets.pairs.sides import Sides, decide_files, decide_sides
from embed_assets.pairs.sources import Past, commit_proposals, docstring_proposals
from embed_assets.pairs.tables import benchmark_of, copies_of, pair_rows
from embed_assets.records import Benchmark, query_digest
from embed_assets.snippets.extract import snippet_id_of

_WORDS = "retry webhook timeout parse header stream table cache token merge split index score column worker queue"
WORDS = _WORDS.split()
FILES = 12


def code_of(number: int, version: int) -> str:
    """Every third function is a copy of the one before, or nearly; a new version changes one line of twelve, or all."""
    seed = number - (number % 3 == 2)
    lines = [
        f"    {WORDS[(seed * 5 + n) % 16]}_{seed}_{n + (version if n == version % 12 else 0)}()" for n in range(12)
    ]
    if version % 4 == 3:
        lines = [line.replace("()", f"({version})") for line in lines]
    return f"def f{seed}():\n" + "\n".join(lines)


@dataclass
class Life:
    """A repository whose functions change, commit by commit."""

    chance: random.Random
    functions: int
    commits: list[CommitQuery] = field(default_factory=list)
    versions: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Function -> (time, version)."""

    def go_on(self, commits: int) -> None:
        for _ in range(commits):
            at = 1_000 + 10 * len(self.commits)
            touched = self.chance.sample(range(self.functions), self.chance.randint(1, 3))
            changed = []
            for number in touched:
                version = len(self.versions.setdefault(number, [])) + 1
                self.versions[number].append((at, version))
                changed.append(self._as_it_stood(number, version))
            text = " ".join(self.chance.choices(WORDS, k=self.chance.randint(3, 7)))
            commit = Commit(commit_id=f"c{at}", parents=("p",), committed_at=at, author="Ann", subject=text, files=())
            self.commits.append(CommitQuery(commit=commit, text=text, functions=tuple(changed)))

    def corpus_at(self, time: int) -> Corpus:
        functions: dict[str, Function] = {}
        representatives: dict[str, str] = {}
        for number in range(self.functions):
            version = max((v for at, v in self.versions.get(number, []) if not time or at <= time), default=0)
            place = self._as_it_stood(number, version)
            doc = " ".join(WORDS[(number * k + k) % 16] for k in range(1, 7)) if number % 2 else ""
            function = Function(
                definition_id=definition_id_at("shop", place.path, "", place.name, ""),
                snippet_id=snippet_id_of("python", place.code),
                repository="shop",
                path=place.path,
                language="python",
                scope="",
                name=place.name,
                code=place.code,
                doc=doc,
            )
            functions[function.definition_id] = function
            representatives.setdefault(function.snippet_id, function.definition_id)
        return Corpus(functions, representatives)

    def _as_it_stood(self, number: int, version: int) -> ChangedFunction:
        return ChangedFunction(
            path=f"src/{number % FILES}.py",
            language="python",
            scope="",
            name=f"f{number}",
            disambiguator="",
            code=code_of(number, version),
            existed=True,
        )


def one_night(life: Life, previous: Sides | None, learnt: set[str]) -> tuple[Sides, pl.DataFrame, Benchmark]:
    """What `build_pairs` does, without a disk."""
    times = [query.commit.committed_at for query in life.commits]
    sides = decide_sides(
        previous, times, test_queries=20, with_history={"shop": True}, decided_at=max(times, default=0)
    )
    corpus = life.corpus_at(sides.cutoff)
    documented: Counter[str] = Counter()
    for function in corpus.documents():
        documented[function.path] += bool(function.doc)
    sides = decide_files(sides, {"shop": documented})
    history = History(tuple(query.commit for query in reversed(life.commits)))
    past = Past(repository="shop", history=history, corpus=corpus, sides=sides)
    dropped: Counter[str] = Counter()
    proposals = [
        *docstring_proposals(corpus, sides, dropped),
        *commit_proposals(past, list(reversed(life.commits)), dropped),
    ]
    sketches = Sketches()
    kept = separate(merge_repeated(without_learnt(proposals, learnt, dropped), dropped), corpus, sketches, dropped)
    pairs = pair_rows(kept, corpus, sketches, hard_negatives=2, held_out=held_out_contents(kept, corpus, sketches))
    benchmark = benchmark_of([one for one in kept if one.split == "test"], corpus, sides.cutoff)
    assert find_leaks(pairs, benchmark, copies_of(corpus)) == []
    return sides, pairs, benchmark


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.integers(15, 60), st.lists(st.integers(0, 30), min_size=3, max_size=7))
def test_no_night_ever_asks_for_what_was_learnt(seed: int, functions: int, nights: list[int]) -> None:
    life = Life(random.Random(seed), functions)
    sides: Sides | None = None
    learnt: set[str] = set()
    frozen: dict[tuple[int, int], str] = {}
    life.go_on(30)
    for commits in nights:
        life.go_on(commits)
        before = sides.cutoff if sides else 0
        sides, pairs, benchmark = one_night(life, sides, learnt)
        assert sides.cutoff >= before
        assert lineage_leaks(benchmark, query_digests=learnt, cutoff=before) == []
        if sides.cutoff:
            key = (sides.cutoff, sides.test_until)
            assert frozen.setdefault(key, benchmark.digest) == benchmark.digest, "frozen until T moves"
        learnt |= {query_digest(text) for text in pairs.filter(pl.col("split") == "train")["query"].to_list()}
