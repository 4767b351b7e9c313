"""The metrics that Prometheus reads from /metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "m3index_requests",
            "Requests by path, method and code.",
            ["path", "method", "code"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "m3index_request_seconds",
            "Duration of a request.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.steps = Histogram(
            "m3index_step_seconds",
            "Duration of the steps of a search: encode, each leg, fuse, fetch, rerank.",
            ["step"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch = Histogram(
            "m3index_encode_batch_queries",
            "Queries in one call of the encoder.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.ready = Gauge("m3index_ready", "1 once the encoder is loaded.", registry=self._registry)

    def record_search(self, timings: Mapping[str, float]) -> None:
        for step, seconds in timings.items():
            self.steps.labels(step).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Measuring:
    """ASGI middleware that counts and times requests. paths: the known ones; others count as `other`, so
    that clients cannot create new series."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code = 500
        start = time.perf_counter()

        async def send_and_record(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
            self._metrics.requests.labels(path, method, str(code)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)
