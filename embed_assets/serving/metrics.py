"""What the service tells Prometheus. One registry per application, so that two never share a counter."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from embed_assets.serving.generation import Generation

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The counters, and how they are read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "embed_assets_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "embed_assets_request_seconds", "Seconds to an answer.", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.inputs = Counter("embed_assets_inputs", "Inputs embedded, by model.", ["model"], registry=self.registry)
        self.tokens = Counter("embed_assets_tokens", "Tokens embedded, by model.", ["model"], registry=self.registry)
        self.truncated = Counter(
            "embed_assets_truncated_inputs", "Inputs cut because the request asked for it.", registry=self.registry
        )
        self.cancelled = Counter(
            "embed_assets_cancelled_requests", "Requests whose client left before the answer.", registry=self.registry
        )
        self.batch_rows = Histogram(
            "embed_assets_batch_rows", "Inputs in one forward pass.", buckets=ROWS, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "embed_assets_batch_seconds", "Seconds of one forward pass.", buckets=SECONDS, registry=self.registry
        )
        self.queued_tokens = Gauge("embed_assets_queued_tokens", "Tokens waiting for a pass.", registry=self.registry)
        self.swaps = Counter(
            "embed_assets_reloads", "Reloads and rollbacks by outcome.", ["outcome"], registry=self.registry
        )

    def watch(self, generations: Callable[[], list[Generation]], queued_tokens: Callable[[], int]) -> None:
        """Reads the gauges from their source at each scrape."""
        self.queued_tokens.set_function(queued_tokens)
        self.registry.register(_Generations(generations))

    def observe_batch(self, rows: int, tokens: int, seconds: float) -> None:
        del tokens  # counted per model where the request is answered
        self.batch_rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)


class _Generations(Collector):
    """One sample for each loaded generation: 1 for the live one, 0 for the one at hand."""

    def __init__(self, generations: Callable[[], list[Generation]]) -> None:
        self._generations = generations

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "embed_assets_generation", "Loaded generations; 1 is live.", labels=["model", "digest", "space_id"]
        )
        for index, generation in enumerate(self._generations()):
            family.add_metric([generation.model, generation.digest, generation.space_id], 0.0 if index else 1.0)
        yield family
