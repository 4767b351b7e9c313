"""What Milvus, Milvus Lite and pymilvus do that could hurt a user; each has a test of what m3index does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from milvus_lite.engine.collection import Collection
from pymilvus import MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2
from servers import free_port, lite_server, start_lite_server, stop
from store.faulty import Failure, Faults, faulty_server
from store.material import BM25, DENSE, LEXICAL, keys, row, sparse, vector

from m3index.errors import (
    FilterError,
    NotAuthorisedError,
    RowRefusedError,
    StoppedError,
    StoreError,
    UnreachableError,
    UsageError,
)
from m3index.store.filter import Compare, Expression
from m3index.store.memory import MemoryStore
from m3index.store.milvus import MilvusStore
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import Leg, Row


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[MilvusStore, Faults]]:
    """A store on a server that passes for Milvus 2.6 and fails as it is told."""
    with faulty_server(tmp_path / "data", version="v2.6.4") as (uri, faults):
        store = MilvusStore.open(uri, timeout=2)
        store.create("x", DENSE, {})
        yield store, faults
        store.close()


def rows(number: int) -> list[Row]:
    return [row(f"d{i}", spec=DENSE) for i in range(number)]


def upserted(request: milvus_pb2.UpsertRequest) -> list[str]:
    field = next(f for f in request.fields_data if f.field_name == "passage_id")
    return list(field.scalars.string_data.data)


# -------------------------------------------------------------- repeating and giving up


@pytest.mark.parametrize("code", [2, 4, 8, 12, 103, 106, 202, 1002, 1807, 2200, grpc.StatusCode.UNAVAILABLE])
def test_a_passing_failure_is_repeated(
    faulty: tuple[MilvusStore, Faults], code: int | grpc.StatusCode
) -> None:
    store, faults = faulty
    faults.times("Upsert", Failure(code), 2)
    store.upsert("x", rows(3))
    assert store.count("x") == 3
    assert len(faults.requests["Upsert"]) == 3


def test_what_a_server_calls_retriable_is_repeated(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    faults.times("Query", Failure(65_535, retriable=True), 1)
    assert store.count("x") == 0
    assert len(faults.requests["Query"]) == 2


@pytest.mark.parametrize("code", [1, 5, 1100, 1600, 65_535])
def test_another_failure_is_not_repeated(
    faulty: tuple[MilvusStore, Faults], code: int | grpc.StatusCode
) -> None:
    store, faults = faulty
    faults.times("Query", Failure(code, "broken"), 9)
    with pytest.raises(StoreError, match="broken"):
        store.count("x")
    assert len(faults.requests["Query"]) == 1


def test_repeating_ends_at_the_deadline(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    faults.times("Upsert", Failure(8, "rate limit exceeded"), 10_000)
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="rate limit exceeded"):
        store.upsert("x", rows(1))
    assert 1 < time.monotonic() - began < 6


def test_a_server_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    first = start_lite_server(tmp_path / "data", port)
    store = MilvusStore.open(f"http://127.0.0.1:{port}", timeout=40)
    second: list[subprocess.Popen[bytes]] = []
    try:
        store.create("x", DENSE, {})
        store.upsert("x", rows(5))
        stop(first, signal.SIGKILL)
        starter = threading.Timer(1.0, lambda: second.append(start_lite_server(tmp_path / "data", port)))
        starter.start()
        store.upsert("x", rows(8))
        starter.join()
        assert store.count("x") == 8
    finally:
        store.close()
        for process in (first, *second):
            stop(process)


def test_a_server_that_is_down_is_said_so_without_the_password() -> None:
    uri = f"http://root:Secr3t@127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match="Check --uri") as error:
        MilvusStore.open(uri, timeout=1)
    assert "Secr3t" not in str(error.value)


def test_a_server_that_dies_is_said_so(tmp_path: Path) -> None:
    with lite_server(tmp_path / "data") as uri:
        store = MilvusStore.open(uri, timeout=1)
        store.create("x", DENSE, {})
    with pytest.raises(UnreachableError):
        store.count("x")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.count("x")


@pytest.mark.parametrize("code", [1400, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_refused_credentials_are_said_so(tmp_path: Path, code: int | grpc.StatusCode) -> None:
    with faulty_server(tmp_path / "data") as (uri, faults):
        faults.times("Connect", Failure(code, "auth check failure"), 99)
        with pytest.raises(NotAuthorisedError, match="--token") as error:
            MilvusStore.open(uri, "root:Secr3t", timeout=3)
        assert "Secr3t" not in str(error.value)


def test_a_quota_stops_the_run(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    faults.times("Upsert", Failure(9, "disk quota exhausted"), 9)
    with pytest.raises(StoppedError, match="disk quota exhausted"):
        store.upsert("x", rows(1))


def test_a_flush_over_the_rate_limit_is_no_failure(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    faults.times("Flush", Failure(8, "rate limit exceeded"), 10_000)
    store.flush("x")


def test_failures_are_not_logged_besides(
    faulty: tuple[MilvusStore, Faults], capfd: pytest.CaptureFixture[str]
) -> None:
    store, faults = faulty
    faults.times("Query", Failure(65_535, "broken"), 1)
    with pytest.raises(StoreError):
        store.count("x")
    assert capfd.readouterr() == ("", "")


def test_a_collection_that_cannot_be_finished_is_not_left_behind(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    faults.times("CreateIndex", Failure(1100, "no such index"), 1)
    with pytest.raises(StoreError, match="no such index"):
        store.create("y", DENSE, {})
    assert store.collections() == ["x"]
    store.create("y", DENSE, {})


# ------------------------------------------------------------------------------- rows


def test_one_bad_row_never_loses_its_neighbours(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    written = rows(40)
    bad = {written[7].passage_id, written[8].passage_id, written[39].passage_id}
    faults.plans["Upsert"] = lambda r: Failure(1100, "bad row") if bad & set(upserted(r)) else None
    with pytest.raises(RowRefusedError, match="document 'd7', passage 0: bad row") as error:
        store.upsert("x", written)
    assert set(error.value.passage_ids) == bad
    assert set(store.get("x", keys(written), [])) == set(keys(written)) - bad


def test_a_message_that_is_too_large_is_divided(tmp_path: Path) -> None:
    with faulty_server(tmp_path / "data", version="v2.6.4", max_message=300_000) as (uri, faults):
        store = MilvusStore.open(uri, timeout=20)
        store.create("x", DENSE, {})
        written = [row(f"d{i}", spec=DENSE, text="x" * 60_000) for i in range(12)]
        store.upsert("x", written)
        assert len(faults.requests["Upsert"]) >= 3
        assert len(store.get("x", keys(written), ["text"])) == 12
        monster = row(
            "monster",
            spec=DENSE,
            **dict.fromkeys(("text", "title"), "y" * 65_000),
            metadata={"a": "y" * 65_000},
            source="s" * 1_000,
        )
        neighbour = row("neighbour", spec=DENSE)
        store.close()
    with faulty_server(tmp_path / "other", version="v2.6.4", max_message=150_000) as (uri, _):
        store = MilvusStore.open(uri, timeout=20)
        store.create("x", DENSE, {})
        with pytest.raises(RowRefusedError, match="document 'monster'") as error:
            store.upsert("x", [monster, neighbour])
        assert error.value.passage_ids == (monster.passage_id,)
        assert set(store.get("x", keys([monster, neighbour]), [])) == {neighbour.passage_id}
        store.close()


def test_batches_are_bounded_by_bytes_and_rows(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    store.upsert("x", rows(2_500))
    assert [len(upserted(r)) for r in faults.requests["Upsert"]] == [1_000, 1_000, 500]
    faults.requests["Upsert"].clear()
    store.upsert("x", [row(f"d{i}", spec=DENSE, text="x" * 65_000, title="y" * 65_000) for i in range(140)])
    sizes = [r.ByteSize() for r in faults.requests["Upsert"]]
    assert max(sizes) <= 16 * 2**20
    assert len(sizes) == 2


def test_every_read_names_its_fields_and_every_search_its_filter(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    store.upsert("x", rows(3))
    where = Compare("source", "==", "default")
    store.get("x", keys(rows(3)), [])
    list(store.scan("x", where, []))
    store.search("x", Leg.DENSE, [vector("q")], 3, where)
    named = [list(r.output_fields) for r in faults.requests["Query"] if not _is_iterator_start(r)]
    assert named
    assert all(named)
    assert not any("dense" in fields for fields in named)
    assert [(list(r.output_fields), r.dsl) for r in faults.requests["Search"]] == [
        (["passage_id"], 'source == "default"')
    ]


def _is_iterator_start(request: milvus_pb2.QueryRequest) -> bool:
    """pymilvus's iterator asks for one row first, to learn the time of the server."""
    return not request.output_fields and any(
        p.key == "limit" and p.value == "1" for p in request.query_params
    )


def test_a_read_by_key_is_the_one_filter_that_lite_answers_fast(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    store.get("x", ["a-0", "b-0"], ["text"])
    store.delete("x", ["a-0"])
    assert faults.requests["Query"][-1].expr == 'passage_id in ["a-0", "b-0"]'
    assert faults.requests["Delete"][-1].expr == 'passage_id in ["a-0"]'


def test_a_list_of_rows_that_is_too_short_is_an_error(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    store.upsert("x", rows(3))

    def five(request: milvus_pb2.QueryRequest) -> milvus_pb2.QueryResults | None:
        if list(request.output_fields) != ["count(*)"]:
            return None
        number = schema_pb2.FieldData(field_name="count(*)", type=schema_pb2.DataType.Int64)
        number.scalars.long_data.data.append(5)
        return milvus_pb2.QueryResults(status=common_pb2.Status(), fields_data=[number])

    faults.plans["Query"] = five
    with pytest.raises(StoreError, match="listed 3 of at least 5 rows"):
        list(store.scan("x", None, []))


def test_a_bad_filter_of_a_server_is_told_in_its_words(faulty: tuple[MilvusStore, Faults]) -> None:
    store, faults = faulty
    said = "cannot parse expression: yeer > 1, error: field yeer not exist"
    whole = f"failed to create query plan: {said}: invalid parameter"
    for code in (1100, 65_535):
        faults.times("Search", Failure(code, whole), 1)
        with pytest.raises(FilterError, match=rf": {re.escape(said)}$"):
            store.search("x", Leg.DENSE, [vector("q")], 1, Expression("yeer > 1"))


def test_a_released_collection_is_loaded_again(tmp_path: Path) -> None:
    with lite_server(tmp_path / "data") as uri:
        store = MilvusStore.open(uri)
        store.create("x", DENSE, {})
        store.upsert("x", rows(3))
        client = MilvusClient(uri, dedicated=True)
        client.release_collection("x")
        assert store.count("x") == 3
        client.release_collection("x")
        assert len(store.search("x", Leg.DENSE, [vector("q")], 3)[0]) == 3
        client.close()
        store.close()


def test_bm25_on_lite_scores_as_declared(tmp_path: Path) -> None:
    """Lite answers with the negative score, and takes k1 = 1.5 where pymilvus flattens the parameters."""
    texts = ["red fish", "red red red bird of the sea", "blue fish " * 7, "green"]
    written = [row(f"d{i}", text=text) for i, text in enumerate(texts)]
    expected, lite = MemoryStore(), open_store(Connection(uri=str(tmp_path / "x.db")))
    for store in (expected, lite):
        store.create("x", BM25, {})
        store.upsert("x", written)
    for query in ("red fish", "fish fish", "the sea"):
        meant = expected.search("x", Leg.BM25, [query], 9)[0]
        found = lite.search("x", Leg.BM25, [query], 9)[0]
        assert [c.passage_id for c in found] == [c.passage_id for c in meant]
        assert [c.score for c in found] == pytest.approx([c.score for c in meant], rel=1e-5)
    lite.close()


# ------------------------------------------------------------------- a database as a file


def test_a_database_is_made_with_its_folders_and_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b c" / "x.db"
    written = [row("a", spec=LEXICAL, sparse=sparse({1: 1.0}))]
    store = MilvusStore.open(str(path))
    store.create("x__g1", LEXICAL, {"uuid": "u"})
    store.point("x", "x__g1")
    store.upsert("x__g1", written)
    store.close()
    store.close()
    again = MilvusStore.open(str(path))
    assert again.resolve("x") == "x__g1"
    assert again.properties("x__g1")["uuid"] == "u"
    assert again.spec("x__g1") == LEXICAL
    assert again.search("x__g1", Leg.LEXICAL, [sparse({1: 1.0})], 1)[0][0].passage_id == written[0].passage_id
    assert again.warnings == []
    again.close()


@pytest.mark.parametrize("uri", ["x", "x.sqlite", "data/", "ftp://host/x.db"])
def test_what_is_no_database_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"\.db"):
        MilvusStore.open(uri)
    assert list(tmp_path.iterdir()) == []


def test_a_file_and_a_foreign_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_bytes(b"SQLite format 3\0")
    (tmp_path / "mine.db").mkdir()
    (tmp_path / "mine.db" / "thesis.txt").write_text("precious")
    for name in ("old.db", "mine.db"):
        with pytest.raises(UsageError, match="Choose another path"):
            MilvusStore.open(str(tmp_path / name))
    assert os.listdir(tmp_path / "mine.db") == ["thesis.txt"]


HOLD = """
import sys, time
from m3index.store.open import open_store
from m3index.store.options import Connection
store = open_store(Connection(uri=sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
store.close()
"""


def test_closing_lets_another_process_in(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    MilvusStore.open(path).close()
    done = subprocess.run([sys.executable, "-c", HOLD, path], input=b"", capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"open\n", b"")


def test_two_stores_of_one_process_share_a_database(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    first, second = MilvusStore.open(path), MilvusStore.open(path)
    first.create("x", DENSE, {})
    second.upsert("x", rows(2))
    first.close()
    assert second.count("x") == 2
    second.close()
    MilvusStore.open(path).close()


def test_a_proxy_in_the_environment_is_not_asked_for_a_local_file(tmp_path: Path) -> None:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path / "x.db")],
        env={**os.environ, **proxies, "no_proxy": "", "no_grpc_proxy": ""},
        input=b"", capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"open\n"), done.stderr


def test_a_full_disk_stops_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MilvusStore.open(str(tmp_path / "x.db"))
    store.create("x", DENSE, {})
    store.upsert("x", rows(2))
    monkeypatch.setenv("M3INDEX_MIN_FREE_DISK", str(2**60))
    for write in (lambda: store.upsert("x", rows(5)), lambda: store.delete("x", keys(rows(1)))):
        with pytest.raises(StoppedError, match="MB are free"):
            write()
    assert store.count("x") == 2
    monkeypatch.setenv("M3INDEX_MIN_FREE_DISK", "1 GB")
    with pytest.raises(UsageError, match="a number of bytes"):
        store.upsert("x", rows(5))
    monkeypatch.delenv("M3INDEX_MIN_FREE_DISK")
    store.upsert("x", rows(5))
    store.close()


def test_after_a_failed_write_the_database_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MilvusStore.open(str(tmp_path / "x.db"))
    store.create("x", DENSE, {})
    store.upsert("x", rows(3))

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Collection, "upsert", broken)
    with pytest.raises(StoreError, match=r"Input/output error.* Run the same command again"):
        store.upsert("x", rows(9))
    monkeypatch.undo()
    assert store.count("x") == 3
    store.upsert("x", rows(9))
    assert store.count("x") == 9
    store.close()


FILL = """
import os, sys
sys.path[:0] = ["tests"]
from store.material import DENSE, row
from m3index.errors import M3IndexError
from m3index.store.lite import LiteFile
from m3index.store.open import open_store
from m3index.store.options import Connection
LiteFile.check_disk = lambda self, batch_bytes: None  # another program fills the disk after the check
store = open_store(Connection(uri=sys.argv[1]))
store.create("x", DENSE, {})
try:
    for i in range(40):
        store.upsert("x", [row(f"d{i}-{j}", spec=DENSE, text=os.urandom(5_000).hex()) for j in range(100)])
except M3IndexError as error:
    print(type(error).__name__, int(error.exit_code), error)
store.close()
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk, root = tmp_path / "disk", Path(__file__).parents[2]
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=8m none {disk}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a small disk")
    filled = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1" {disk}/x.db', sys.executable, FILL],
        cwd=root, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert filled.stdout.startswith("StoppedError 17 "), filled.stdout + filled.stderr
    assert "No space left on device" in filled.stdout


WRITE = """
import os, signal, sys
sys.path[:0] = ["tests"]
from store.material import DENSE, row
from m3index.store.open import open_store
from m3index.store.options import Connection
store = open_store(Connection(uri=sys.argv[1]))
store.create("x", DENSE, {})
for i in range(5):
    store.upsert("x", [row(f"d{i}-{j}", spec=DENSE) for j in range(10)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing_and_lost_rows_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", WRITE, str(path)], cwd=root, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    log = next(path.glob("**/wal_data_*.arrow"))
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) * 2 // 3])
    store = MilvusStore.open(str(path))
    assert store.warnings == []
    assert store.count("x") < 50
    assert any("WAL recovery stopped" in warning for warning in store.warnings)
    assert store.describe()["warnings"] == store.warnings
    store.close()
    killed = subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "y.db")], cwd=root, timeout=60)
    store = MilvusStore.open(str(tmp_path / "y.db"))
    assert store.count("x") == 50
    assert store.warnings == []
    store.close()


# ---------------------------------------------------------------------------- start-up


def test_the_contracts_import_no_engine() -> None:
    code = (
        "import sys, m3index.store.base, m3index.store.filter, m3index.store.open, m3index.store.memory; "
        "print([m for m in ('pymilvus', 'grpc', 'milvus_lite') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_memory_store_opens_by_its_uri() -> None:
    store = open_store(Connection(uri="memory:"))
    assert store.describe()["kind"] == "memory"
    store.close()
