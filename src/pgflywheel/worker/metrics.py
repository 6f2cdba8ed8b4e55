"""Counters of one worker, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """All names begin with ``pgflywheel_``; each worker has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = self._counter("jobs", "Jobs ended, by lane and outcome.", "lane", "outcome")
        self.spans = self._counter("spans", "Spans of the jobs completed, by lane.", "lane")
        self.scores = self._counter("scores", "Scores written, by lane.", "lane")
        self.faults = self._counter("faults", "Faults of validators, by validator and reason.", "validator", "reason")
        self.void = self._counter("void", "Jobs whose lease was lost before they were written, by lane.", "lane")
        self.calls = self._counter("calls", "Calls to models, by provider and outcome.", "provider", "outcome")
        self.errors = self._counter("errors", "Errors the worker went on after, by part.", "part")
        self.in_hand = self._gauge("in_hand", "Jobs claimed and not yet ended.")
        self.listening = self._gauge("listening", "1 when notifications arrive, 0 when the worker polls.")
        self.last_heartbeat = self._gauge("last_heartbeat_timestamp_seconds", "When the lease was last renewed.")
        self.batch_seconds = self._histogram("batch_seconds", "Time from claim to completion, by lane.", "lane")

    def text(self) -> bytes:
        """Return the exposition format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"pgflywheel_{name}", help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"pgflywheel_{name}", help_text, registry=self.registry)

    def _histogram(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(f"pgflywheel_{name}", help_text, labels, registry=self.registry)
