"""A run pauses anywhere for longer than its lease, another writer completes a run, and the first goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from fakes import FakeEncoder
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from index.support import SETTINGS, ListCorpus, check_invariant, doc, rows

from m3index.errors import Exit, LockedError
from m3index.index import lock
from m3index.index.sync import sync
from m3index.store.memory import MemoryStore
from m3index.types import Document


class Clock:
    """The time of all hosts."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Client(MemoryStore):
    """The connection of one host to a store that several hosts share.

    pause: called at the write with the number `at`; before the lease is proved, or, if `late`, after it, when
    only the call itself is left.
    """

    uri = "http://shared"

    def __init__(self, shared: MemoryStore, batch: int) -> None:
        super().__init__(batch=batch)
        self._collections, self._aliases, self._lock = shared._collections, shared._aliases, shared._lock
        self.pause: Callable[[], None] | None = None
        self.at, self.late, self.writes = 0, False, 0

    def _begin(self, what: str, name: str) -> None:
        self.writes += 1
        due = self.pause is not None and self.writes == self.at
        if due and not self.late:
            assert self.pause is not None
            self.pause()
        super()._begin(what, name)
        if due and self.late:
            assert self.pause is not None
            self.pause()


@dataclass(frozen=True)
class Pause:
    """at: the write of the first run before which it pauses. late: after its lease was proved."""

    at: int
    late: bool
    batch: int


LENGTHS = (1, 9, 17, 40)


def corpora() -> st.SearchStrategy[list[Document]]:
    """Three to six of eight documents, of one to five passages, in one of three versions."""
    document = st.builds(
        lambda i, length, version: doc(f"d{i}", " ".join(f"{version}{i}w{w}" for w in range(length))),
        st.integers(0, 7),
        st.sampled_from(LENGTHS),
        st.sampled_from("abc"),
    )
    return st.lists(document, min_size=3, max_size=6, unique_by=lambda d: d.doc_id)


def pauses() -> st.SearchStrategy[Pause]:
    return st.builds(Pause, st.integers(1, 25), st.booleans(), st.integers(1, 4))


def rebuilt(corpus: Sequence[Document]) -> dict[str, dict[str, object]]:
    store = MemoryStore()
    sync(store, FakeEncoder(), "docs", ListCorpus(corpus), SETTINGS)
    return rows(store)


@pytest.fixture(scope="module", autouse=True)
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {name: str(tmp_path_factory.mktemp(name)) for name in "ab"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(corpora(), corpora(), corpora(), pauses(), st.booleans())
@example([doc("d0", 40)], [doc("d0", 9)], [doc("d0", "c " * 40)], Pause(3, True, 4), False)
@example([doc("d0", 40)], [doc("d1", 9)], [doc("d0", "c " * 40)], Pause(2, True, 1), True)
@example(  # the other run removes a row between the read and the write of a mark
    [doc("d0", "a0w0 " * 9), doc("d2", "a2w0 " * 40), doc("d3", "a3w0 " * 9)],
    [doc("d0", "a0w0"), doc("d1", "a1w0 " * 40), doc("d2", "a2w0")],
    [doc("d0", "a0w0"), doc("d1", "a1w0"), doc("d2", "a2w0")],
    Pause(20, True, 1),
    False,
)
def test_what_a_paused_run_leaves_is_right_after_the_next_sync(
    hosts: dict[str, str],
    before: list[Document],
    sleeping: list[Document],
    other: list[Document],
    pause: Pause,
    sleeper_is_next: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        check(patch, hosts, before, sleeping, other, pause, sleeper_is_next)


def check(
    patch: pytest.MonkeyPatch,
    hosts: dict[str, str],
    before: list[Document],
    sleeping: list[Document],
    other: list[Document],
    pause: Pause,
    sleeper_is_next: bool,
) -> None:
    clock = Clock()
    patch.setattr(lock, "SETTLE_SECONDS", 0.0)
    patch.setattr(lock, "uptime", clock)
    patch.setattr(lock.time, "time", clock)
    shared = MemoryStore()

    def run(host: str, corpus: list[Document], client: Client | None = None) -> int:
        patch.setenv("XDG_RUNTIME_DIR", hosts[host])
        client = client or Client(shared, pause.batch)
        return sync(client, FakeEncoder(), "docs", ListCorpus(corpus), SETTINGS).exit

    def sleep() -> None:
        clock.now += lock.LEASE_SECONDS + 1.0
        assert run("b", other) == Exit.OK

    assert run("b", before) == Exit.OK
    client = Client(shared, pause.batch)
    client.pause, client.at, client.late = sleep, pause.at, pause.late
    try:
        run("a", sleeping, client)
        event("it ended before the pause")
        assert client.writes < pause.at or (pause.late and client.writes == pause.at)
    except LockedError:
        assert client.writes >= pause.at
        if pause.late:
            event("one write went through")
        else:
            event("no write went through")
            assert rows(shared) == rebuilt(other)

    host, corpus = ("a", sleeping) if sleeper_is_next else ("b", other)
    assert run(host, corpus) in (Exit.OK, Exit.DRIFT)
    check_invariant(rows(shared))
    assert rows(shared) == rebuilt(corpus)
    assert run(host, corpus) == Exit.OK
