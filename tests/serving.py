"""A small index in memory, and a real server over it in a thread, on a real socket."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fakes import FakeEncoder
from starlette.types import ASGIApp

from m3index.encoder.base import Encoder
from m3index.encoder.options import Model
from m3index.index.options import IngestOptions
from m3index.serve.app import create_app
from m3index.serve.client import RemoteIndex
from m3index.serve.guard import Access, access
from m3index.serve.listen import make_server, run_server
from m3index.serve.metrics import Metrics
from m3index.serve.served import ServedIndex
from m3index.service import IndexService
from m3index.store.options import Connection
from m3index.types import Document

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
DOCUMENTS = [
    Document(f"{lang}-{n}", f"{subject} {n} of the sea", f"Note {n}", {"lang": lang, "n": n})
    for lang, subject in (("en", "tides and moons"), ("de", "Ebbe und Flut"), ("fr", "marées et lunes"))
    for n in range(12)
] + [
    Document("evil", f"malice {EVIL} sea malice", EVIL, {"lang": EVIL, "n": 99}),
    Document('a"b', "a quote in the name", "", {"lang": "en", "n": 100}),
    Document("ar", "يرتفع البحر وينخفض sea", "المد", {"lang": "ar", "n": 101}),
    Document("long", " ".join(f"word{i}" for i in range(200)), "Long", {"lang": "en", "n": 102}),
]


def build(
    encoder: Encoder | None = None,
    documents: list[Document] | None = None,
    *,
    tenant_field: str | None = None,
    passage_tokens: int | None = None,
    uri: str = "memory:",
) -> IndexService:
    """The documents in a store, in memory where nothing else is said."""
    index = IndexService.open(
        Connection(collection="notes", uri=uri), Model(encoder=encoder or FakeEncoder())
    )
    options = IngestOptions(
        fields={"lang": "str", "n": "int"}, tenant_field=tenant_field, passage_tokens=passage_tokens
    )
    index.update(documents or DOCUMENTS, options)
    return index


@dataclass
class Server:
    url: str
    warm: ServedIndex
    metrics: Metrics
    thread: threading.Thread
    stop: Callable[[], None]

    def client(self, token: str | None = None) -> RemoteIndex:
        return RemoteIndex(self.url, token, timeout=10)


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """An application on a free port of the loopback; yields its URL."""
    server = make_server(app)
    urls: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=run_server, args=(server, "127.0.0.1", 0, urls.put))
    thread.start()
    try:
        yield urls.get(timeout=10)
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def serving(
    index: IndexService,
    allowed: Access | None = None,
    *,
    loaded: bool = True,
    tenant: str | None = None,
    timeout: float = 60.0,
) -> Iterator[Server]:
    metrics = Metrics()
    warm = ServedIndex(index, on_batch=metrics.batch.observe, tenant=tenant, timeout=timeout)
    listening = threading.Event()
    urls: list[str] = []

    def told(url: str) -> None:
        urls.append(url)
        listening.set()

    def stop() -> None:
        server.should_exit = True

    server = make_server(create_app(warm, allowed or access("127.0.0.1", None), metrics, stop))
    thread = threading.Thread(target=run_server, args=(server, "127.0.0.1", 0, told))
    thread.start()
    try:
        assert listening.wait(10)
        deadline = threading.Event()
        while loaded and not warm.loaded:
            assert thread.is_alive()
            deadline.wait(0.01)
        yield Server(urls[0], warm, metrics, thread, stop)
    finally:
        stop()
        thread.join(30)
    assert not thread.is_alive()
