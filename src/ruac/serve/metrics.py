"""What the workers count, as Prometheus reads it."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ruac.serve.settings import METRICS_FOLDER

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """With METRICS_FOLDER in the environment the figures of all workers are added up, whichever of them is asked."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.requests = Counter("ruac_requests", "Requests that were answered", ["endpoint", "status"], registry=registry)
        self.seconds = Histogram(
            "ruac_request_seconds", "From a request's head to its whole answer", ["endpoint"], registry=registry, buckets=SECONDS
        )
        self.accepted = self._gauge("ruac_accepted", "Requests that are being worked on or wait for it", registry)
        self.embeddings = Counter("ruac_embeddings", "Images that were asked about", ["cache"], registry=registry)
        self.cached_images = self._gauge("ruac_cached_images", "Images that are kept encoded", registry)
        self.cached_bytes = self._gauge("ruac_cached_bytes", "Bytes that they take", registry)
        self.spool_bytes = Gauge(
            "ruac_spool_bytes", "Bytes of the uploads on disk", registry=registry, multiprocess_mode="mostrecent"
        )
        self._registry = registry

    @staticmethod
    def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
        return Gauge(name, text, registry=registry, multiprocess_mode="livesum")

    def text(self) -> bytes:
        """In Prometheus' text format."""
        if METRICS_FOLDER not in os.environ:
            return generate_latest(self._registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)
