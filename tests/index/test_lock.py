from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Mapping
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from index.support import INGEST, PRUNE, SETTINGS, ListCorpus, doc, rows, run

from m3index.errors import LockedError, UsageError
from m3index.index import lock as module
from m3index.index.collection import Collection, find
from m3index.index.lock import Holder, current_lease, hold, is_local, lock_path, plan_unlock, unlock
from m3index.index.options import IngestOptions
from m3index.index.sync import sync
from m3index.store.memory import MemoryStore

FORK = multiprocessing.get_context("fork")


class Server(MemoryStore):
    """A store that other hosts can access."""

    @property
    def uri(self) -> str:
        return "http://milvus:19530"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.02)


@pytest.fixture
def server() -> Server:
    server = Server()
    run(server, [doc("a")])
    return server


def another_host(owner: str = "theirs", expires_in: float = 60.0) -> str:
    holder = Holder(
        owner,
        "elsewhere",
        "host-b",
        7,
        "cron",
        "m3index sync",
        "2026-01-01T00:00:00+00:00",
        time.time() + expires_in,
    )
    return holder.to_json()


def _hold_until(uri_holder: Server, ready: Event, done: Event) -> None:
    with hold(uri_holder, "docs", 0.0, "m3index sync"):
        ready.set()
        done.wait(30)


def test_a_second_process_gets_an_error_that_names_the_first() -> None:
    store, ready, done = Server(), FORK.Event(), FORK.Event()
    process = FORK.Process(target=_hold_until, args=(store, ready, done))
    process.start()
    assert ready.wait(10)
    with pytest.raises(LockedError, match=f"`m3index sync`.*process {process.pid} on") as caught:
        run(store, [doc("a")])
    assert caught.value.exit_code == 11
    assert store.collections() == [], "the second run did nothing"
    with hold(store, "another", 0.0, "m3index sync"):
        pass
    done.set()
    process.join(10)
    assert process.exitcode == 0
    assert run(store, [doc("a")]).added == 1


def test_the_lock_of_a_killed_process_is_free() -> None:
    store, ready, done = Server(), FORK.Event(), FORK.Event()
    process = FORK.Process(target=_hold_until, args=(store, ready, done))
    process.start()
    assert ready.wait(10)
    process.kill()
    process.join(10)
    with hold(store, "docs", 0.0, "m3index sync"):
        pass


def test_retry_lock_waits() -> None:
    store, ready, done = Server(), FORK.Event(), FORK.Event()
    process = FORK.Process(target=_hold_until, args=(store, ready, done))
    process.start()
    assert ready.wait(10)
    threading.Timer(0.3, done.set).start()
    started = time.monotonic()
    with hold(store, "docs", 10.0, "m3index sync"):
        assert 0.2 < time.monotonic() - started < 5
    process.join(10)


def test_a_second_run_in_the_same_process_is_locked_out() -> None:
    store = MemoryStore()
    with hold(store, "docs", 0.0, "m3index sync"), pytest.raises(LockedError), hold(store, "docs", 0.0, "x"):
        pass


# -------------------------------------------------------------------- lease


def test_a_lease_of_another_host_locks_and_an_expired_one_does_not(server: Server) -> None:
    server.set_properties("docs__g1", {"lease": another_host()})
    before = rows(server)
    with pytest.raises(LockedError, match=r"cron \(process 7 on host-b"):
        run(server, [doc("b")])
    assert rows(server) == before
    server.set_properties("docs__g1", {"lease": another_host(expires_in=-1)})
    assert run(server, [doc("b")]).added == 1
    assert server.properties("docs__g1")["lease"] == "free"


@pytest.mark.parametrize("lease", ["", "free", "{", "[]", '{"owner": 1}'])
def test_an_invalid_lease_is_free(server: Server, lease: str) -> None:
    server.set_properties("docs__g1", {"lease": lease})
    assert run(server, [doc("b")]).added == 1


@pytest.mark.parametrize("settings", [INGEST, SETTINGS, PRUNE], ids=lambda settings: settings.mode)
def test_a_holder_names_its_command(server: Server, settings: IngestOptions) -> None:
    commands_seen: list[str] = []
    write = server.set_properties

    def noted(name: str, properties: Mapping[str, str]) -> None:
        if properties.get("lease", "free") != "free":
            commands_seen.append(json.loads(properties["lease"])["command"])
        write(name, properties)

    server.set_properties = noted  # type: ignore[method-assign]
    run(server, [doc("a")], settings=settings)
    commands = {"ingest": "m3index ingest", "sync": "m3index sync", "prune": "m3index sync --removals-only"}
    assert set(commands_seen) == {commands[settings.mode]}


def test_a_lost_race_is_detected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host overwrites the lease before it is read back."""
    write = server.set_properties

    def overwritten(name: str, properties: Mapping[str, str]) -> None:
        write(name, properties)
        if "lease" in properties and properties["lease"] != "free":
            write(name, {"lease": another_host()})

    monkeypatch.setattr(server, "set_properties", overwritten)
    with pytest.raises(LockedError, match="host-b"):
        run(server, [doc("b")])
    assert json.loads(server.properties("docs__g1")["lease"])["owner"] == "theirs"


def test_the_lease_is_renewed_and_a_stolen_one_ends_the_run(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.05)
    with hold(server, "docs", 0.0, "m3index sync") as lock:
        lock.lease(lambda: find(server, "docs"), rewrites=[])
        first = current_lease(server, "docs__g1")
        time.sleep(0.3)
        renewed = current_lease(server, "docs__g1")
        assert first is not None
        assert renewed is not None
        assert renewed.owner == first.owner
        assert renewed.expires > first.expires
        lock.check()
        server.set_properties("docs__g1", {"lease": another_host()})
        time.sleep(0.3)
        with pytest.raises(LockedError):
            lock.check()
    assert json.loads(server.properties("docs__g1")["lease"])["owner"] == "theirs", "not ours to free"


def test_a_run_whose_lease_is_stolen_stops(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.01)

    class Slow(FakeEncoder):
        def encode_ids(self, ids: Any, **options: Any) -> Any:
            server.set_properties("docs__g1", {"lease": another_host()})
            time.sleep(0.1)
            return super().encode_ids(ids, **options)

    with pytest.raises(LockedError, match="has taken the lease"):
        sync(server, Slow(), "docs", ListCorpus([doc(f"d{i}", 400) for i in range(100)]), SETTINGS)


def test_an_alias_that_moved_while_waiting_is_followed(server: Server) -> None:
    spec, properties = server.spec("docs__g1"), server.properties("docs__g1")
    server.create("docs__g2", spec, properties)
    opened: list[str] = []

    def open_target() -> Collection:
        target = find(server, "docs")
        opened.append(target.name)
        server.point("docs", "docs__g2")
        return target

    with hold(server, "docs", 0.0, "m3index sync") as lock:
        assert lock.lease(open_target, rewrites=[]).name == "docs__g2"
        assert current_lease(server, "docs__g1") is None
        assert current_lease(server, "docs__g2") is not None
    assert opened == ["docs__g1", "docs__g2", "docs__g2"]


def test_unlock_frees_a_dead_lease_but_not_a_held_lock(server: Server) -> None:
    server.set_properties("docs__g1", {"lease": another_host()})
    planned = plan_unlock(server, "docs")
    freed = unlock(server, "docs")
    assert planned == freed, "a plan frees nothing"
    assert freed is not None
    assert freed.host == "host-b"
    assert unlock(server, "docs") is None
    assert run(server, [doc("b")]).added == 1
    with hold(server, "docs", 0.0, "m3index sync"), pytest.raises(LockedError):
        unlock(server, "docs")


def test_lock_paths(own_locks: Path, tmp_path: Path) -> None:
    a = lock_path("http://h:19530", "docs")
    assert a == lock_path("http://h:19530/", "docs")
    assert a != lock_path("http://h:19531", "docs")
    assert a != lock_path("http://h:19530", "docs2")
    assert a.parent.parent == own_locks
    assert lock_path(str(tmp_path / "x.db"), "d") == lock_path(str(tmp_path / "." / "x.db"), "d")
    assert is_local("m3index.db")
    assert not is_local("https://in.zilliz.com")


def test_a_lock_directory_of_another_user_is_refused(own_locks: Path, tmp_path: Path) -> None:
    (own_locks / f"m3index-{os.getuid()}").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UsageError, match="belongs to another user"):
        lock_path("http://h:19530", "docs")
    assert not list(tmp_path.iterdir())


def test_the_lease_of_a_dead_process_of_this_machine_is_free(server: Server) -> None:
    process = FORK.Process(target=time.sleep, args=(30,))
    process.start()
    holder = Holder(
        "theirs", module.machine(), "here", process.pid or 0, "me", "m3index sync", "", time.time() + 60
    )
    server.set_properties("docs__g1", {"lease": holder.to_json()})
    with pytest.raises(LockedError):
        run(server, [doc("b")])
    process.kill()
    process.join(10)
    assert module.machine() == "" or run(server, [doc("b")]).added == 1
