"""What the demo shows of a night: single queries, the verdict, and one question asked of the service twice."""

from collections.abc import Iterator
from dataclasses import dataclass

from embed_assets.checkpoints.verdict import latest_candidate_id, read_report
from embed_assets.evaluation.answers import nearest
from embed_assets.evaluation.benchmark import read_benchmark
from embed_assets.evaluation.table import improved_examples, worst_losses
from embed_assets.evaluation.vectors import Floats
from embed_assets.night import NightOutcome
from embed_assets.serving.client import LiveEmbedder
from embed_assets.settings import Settings
from embed_assets.state import state_of
from embed_assets.store import Store

QUERY = "shortest route between two nodes when some edges have negative weight"
EXAMPLES = 3
LONGEST_LINE = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """The question as the running service embedded it, and the model that did."""

    model: str
    space_id: str
    vector: Floats
    """(dim,) unit vector"""


def ask(service: LiveEmbedder) -> Asked:
    """Has the service embed the question.

    Raises:
        ServiceError: it cannot be reached, or refused.
    """
    vectors, model = service.embed([QUERY], "query")
    spaces = {listed["id"]: listed["space_id"] for listed in service.models()}
    return Asked(model=model, space_id=spaces[model], vector=vectors[0])


def story(settings: Settings, outcome: NightOutcome, service: LiveEmbedder, before: Asked) -> Iterator[str]:
    """What there is to say after the night's own table; a night refused before it trained has only its reasons."""
    store = Store(settings.data_dir)
    if not (store.latest_candidate / "report.json").exists():
        yield f"Verdict: {outcome.text}"
        return
    yield examples(store)
    yield f"Verdict: {outcome.name}\n{reasons(settings)}"
    yield swap(store, service, before)


def examples(store: Store) -> str:
    """Held-out queries that gained and that lost most: both, or the picture would be a painted one."""
    report = read_report(store, latest_candidate_id(store))
    benchmark = read_benchmark(store.benchmarks / report.benchmark_digest)
    lines = ["Held-out queries that gained and lost most, rank of the right function before and after:"]
    for moved in (improved_examples(report, benchmark, EXAMPLES), worst_losses(report, benchmark, EXAMPLES)):
        lines += [f"  {each.rank_before:>5} -> {each.rank_after:<5} {_short(each.query)}" for each in moved]
    return "\n".join(lines)


def reasons(settings: Settings) -> str:
    """The gate's rules with their numbers, one a line."""
    return "\n".join(f"  - {reason}" for reason in state_of(settings).candidate.get("reasons", ()))


def swap(store: Store, service: LiveEmbedder, before: Asked) -> str:
    """What the service answers now, beside what it answered before; the functions found are of the held-out corpus."""
    after = ask(service)
    swapped = after.model != before.model
    found = [_found(store, asked) for asked in ((before, after) if swapped else (after,))]
    said = f"swapped in for {before.model} without a restart" if swapped else "as before: nothing was promoted"
    return "\n".join(
        [
            f"The service at {service.url} was asked before and after: {QUERY!r}",
            *found,
            f"It answers with {after.model} now, {said}.",
        ]
    )


def _found(store: Store, asked: Asked) -> str:
    corpus = read_benchmark(store.current_benchmark)
    answers = nearest(asked.vector, corpus, space_id=asked.space_id, root=store.vectors)
    lines = [f"    {place}. {answer.name}  ({answer.path})" for place, answer in enumerate(answers, 1)]
    return "\n".join([f"  {asked.model} finds", *lines])


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 3]}..."
