"""With lost, repeated, delayed and reset calls, nothing is lost or duplicated and no run hangs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Event

import pytest
from index.support import check_invariant
from integration.conftest import NewIndex
from integration.corpora import ALL, documents, held, in_memory, layout
from integration.engines import Engine
from integration.proxy import Fault, Proxy, first, proxied, seeded

from m3index.errors import M3IndexError, UnreachableError
from m3index.index import lock
from m3index.index.summary import Summary

pytestmark = pytest.mark.integration

TIMEOUT = 10.0
RUN_SECONDS = 60.0
RERUNS = 8


@pytest.fixture(scope="module")
def way(engine: Engine) -> Iterator[Proxy]:
    if engine.uri.startswith("https"):
        pytest.skip("the proxy speaks no TLS")
    with proxied(engine.uri) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _clear_way(way: Proxy) -> Iterator[None]:
    way.plan = None
    way.met = Counter()
    yield
    way.plan = None


def until_done(run: Callable[[], Summary]) -> Summary:
    """Repeats the same run, as cron does. Each run ends within its time limit, successfully or not."""
    failures: list[M3IndexError] = []
    for _ in range(RERUNS):
        began = time.monotonic()
        try:
            summary = run()
        except M3IndexError as error:
            failures.append(error)
        else:
            if summary.exit == 0:
                return summary
        assert time.monotonic() - began < RUN_SECONDS
    raise AssertionError(f"not done after {RERUNS} runs: {failures}")


@pytest.mark.parametrize("seed", range(4))
def test_runs_over_a_faulty_connection_equal_a_rebuild(
    engine: Engine, new_index: NewIndex, way: Proxy, seed: int
) -> None:
    how = layout(engine)
    old, new = documents(40, seed=seed), documents(36, seed=seed, edition=1)[4:]
    index = new_index(uri=way.uri, timeout=TIMEOUT)

    bad = way.plan = seeded(seed, 0.2)
    summary = until_done(lambda: index.ingest(old, **how))
    assert summary.count_ok
    way.plan = None
    assert held(index) == held(in_memory(old, how))

    way.plan = bad
    until_done(lambda: index.sync(new, max_delete=ALL, **how))
    way.plan = None
    found = held(index)
    check_invariant(found)
    assert found == held(in_memory(new, how))
    last = index.sync(new, max_delete=ALL, **how)
    assert (last.exit, last.unchanged, last.passages) == (0, len(new), 0)
    assert way.met.total() >= 5, "the connection had enough faults"


WRITES = ("Upsert", "Delete", "Flush", "AlterCollection")
CREATION = ("CreateCollection", "CreateIndex", "LoadCollection", "CreateAlias")


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.SILENT], ids=lambda f: f.name)
def test_each_fault_of_each_write_is_handled(
    engine: Engine, new_index: NewIndex, way: Proxy, fault: Fault
) -> None:
    how = layout(engine)
    old, new = documents(12), documents(10, edition=1)
    index = new_index(uri=way.uri, timeout=TIMEOUT)
    for method in CREATION:
        way.plan = first(method, fault)
        until_done(lambda: index.ingest(old, **how))
    for method in WRITES:
        way.plan = first(method, fault)
        until_done(lambda: index.sync(new, max_delete=ALL, **how))
        way.plan = None
        assert held(index) == held(in_memory(new, how)), method
        until_done(lambda: index.sync(old, max_delete=ALL, **how))
    assert way.met[fault] >= len(WRITES)


def test_a_rate_limit_is_retried_and_reported_if_it_lasts(
    engine: Engine, new_index: NewIndex, way: Proxy
) -> None:
    how = layout(engine)
    made = new_index()
    made.ingest(documents(3), **how)
    index = new_index(made.collection, uri=way.uri, timeout=3)
    way.plan = first("Upsert", Fault.BUSY, times=3)
    assert index.ingest(documents(6), **how).exit == 0
    assert way.met[Fault.BUSY] == 3

    way.plan = lambda method, _: Fault.BUSY if method == "Upsert" else None
    with pytest.raises(UnreachableError, match="rate limit exceeded") as error:
        index.ingest(documents(9), **how)
    assert error.value.summary is not None
    assert error.value.summary["exit"] == 20
    way.plan = None
    assert index.ingest(documents(9), **how).exit == 0
    assert held(index) == held(in_memory(documents(9), how))


def test_a_missing_response_times_out(engine: Engine, new_index: NewIndex, way: Proxy) -> None:
    how = layout(engine)
    made = new_index()
    made.ingest(documents(3), **how)
    index = new_index(made.collection, uri=way.uri, timeout=2)
    for method, call in {
        "Search": lambda: index.search("sea", mode="dense"),
        "Upsert": lambda: index.ingest(documents(6), **how),
    }.items():
        way.plan = lambda name, _, method=method: Fault.SILENT if name == method else None
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="did not answer"):
            call()
        assert time.monotonic() - began < 15
    way.plan = None
    assert index.ingest(documents(6), **how).exit == 0, "rows written before a lost response are recognised"
    assert held(index) == held(in_memory(documents(6), how))


@pytest.mark.parametrize("method", ["Upsert", "Query", "AlterCollection"])
def test_a_run_ends_soon_after_the_server_falls_silent(
    engine: Engine, new_index: NewIndex, way: Proxy, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Nothing answers from the first call of `method` on: the run gives up once, not for each of its ends."""
    timeout = 8.0
    monkeypatch.setattr(lock, "RENEW_SECONDS", 1.0)  # so that a renewal is under way, too
    how = layout(engine)
    made = new_index()
    made.ingest(documents(3), **how)
    index = new_index(made.collection, uri=way.uri, timeout=timeout)
    is_silent = Event()

    def plan(name: str, _: int) -> Fault | None:
        if name == method and (method != "AlterCollection" or made_rows.is_set()):
            is_silent.set()
        if name == "Upsert":
            made_rows.set()
        return Fault.SILENT if is_silent.is_set() else None

    made_rows = Event()
    way.plan = plan
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="did not answer"):
        index.ingest(documents(6), **how)
    assert time.monotonic() - began < timeout + lock.ENDING_SECONDS + 6
    way.plan = None
    assert until_done(lambda: index.ingest(documents(6), retry_lock=10, **how)).exit == 0


def test_searches_are_retried(engine: Engine, new_index: NewIndex, way: Proxy) -> None:
    index = new_index(uri=way.uri, timeout=TIMEOUT)
    index.ingest(documents(10), **layout(engine))
    wanted = [h.doc_id for h in index.search("sea", mode="dense").hits]
    for fault in (Fault.REFUSED, Fault.LOST, Fault.EXPIRED, Fault.TWICE, Fault.SLOW, Fault.BUSY, Fault.RESET):
        way.plan = first("Search", fault)
        assert [h.doc_id for h in index.search("sea", mode="dense").hits] == wanted, fault.name
        assert way.met[fault] == 1
