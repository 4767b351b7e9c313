"""Clients that are slow, silent, too many or malicious, on real sockets: honest ones are served beside them,
nothing hangs, and nothing grows."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, start_lite_server, stop
from serving import Server, build, serving
from sinks import sink

from m3index import connect
from m3index.errors import FilterError, StoreError, UnreachableError, UsageError
from m3index.serve import client as client_module
from m3index.serve import limits
from m3index.serve.guard import access
from m3index.serve.served import ServedIndex
from m3index.store.filter import MAX_VALUES

WAIT = 20.0
"""Seconds after which a test gives up: far more than anything takes."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of few connections and little patience."""
    monkeypatch.setattr(limits, "connection_limit", lambda: 20)
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "SEND_SECONDS"):
        monkeypatch.setattr(limits, name, 0.5)


@pytest.fixture
def server(short: None) -> Iterator[Server]:
    with serving(build()) as running:
        yield running


def port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


@contextmanager
def opened(server: Server, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections of a client that sends no more than this."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port(server)), WAIT))
            if first:
                connection.sendall(first)
            sockets.append(connection)
        yield sockets


def rest(connection: socket.socket) -> bytes:
    """What a server still sends until it ends the connection."""
    said = b""
    with suppress(ConnectionError):
        while block := connection.recv(65536):
            said += block
    return said


def is_served(server: Server) -> None:
    assert server.client().search("sea", k=1).hits


# -- connections


def test_idle_connections_shut_nobody_out_and_end(server: Server) -> None:
    with opened(server, 60) as idle:
        is_served(server)
        assert all(rest(connection) == b"" for connection in idle)
    is_served(server)


def test_a_new_connection_takes_the_place_of_the_oldest_idle_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "connection_limit", lambda: 3)
    with serving(build()) as running, opened(running, 3) as idle:
        is_served(running)
        assert rest(idle[0]) == b"", "its time is not over, but another needs its place"


def test_half_heads_end_even_if_they_drip(server: Server) -> None:
    with opened(server, 10, b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ") as half:
        end = time.monotonic() + WAIT
        alive = list(half)
        while alive:
            assert time.monotonic() < end, f"{len(alive)} half heads stay"
            for connection in list(alive):
                try:
                    connection.sendall(b"x")
                    connection.settimeout(0.01)
                    connection.recv(4096)  # the answer, or the end
                    alive.remove(connection)
                except TimeoutError:
                    connection.settimeout(WAIT)
                except OSError:
                    alive.remove(connection)
            time.sleep(0.05)
        is_served(server)


def test_slow_bodies_end_and_hold_no_place(server: Server) -> None:
    head = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999\r\n\r\n{"
    with opened(server, 15, head) as slow:
        is_served(server)
        assert all(rest(connection) == b"" for connection in slow)


def test_answers_that_nobody_reads_end(server: Server) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with opened(server, 3) as deaf:
        for connection in deaf:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(WAIT)
        end = time.monotonic() + WAIT
        for connection in deaf:
            with suppress(ConnectionError):
                while time.monotonic() < end:
                    connection.sendall(ask)
                    time.sleep(0.002)
        assert time.monotonic() < end, "they are answered for ever"
        is_served(server)


def test_many_requests_at_once_are_answered_or_refused(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setattr("m3index.serve.guard.REQUESTS", 2)
    gate = threading.Event()
    search = ServedIndex.search

    def slow(self: ServedIndex, request: Any) -> Any:
        gate.wait(WAIT)
        return search(self, request)

    monkeypatch.setattr(ServedIndex, "search", slow)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(get, server, "/search?query=sea") for _ in range(6)]
        end = time.monotonic() + WAIT
        while sum(future.done() for future in asked) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert get(server, "/health")[0] == 200, "it takes no place"
        gate.set()
    codes = sorted(future.result()[0] for future in asked)
    assert codes == [200, 200, 503, 503, 503, 503]


def get(server: Server, path: str, token: str = "", body: Any = None) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["content-type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_bodies_have_a_bound_together(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr("m3index.serve.guard.BUFFERED", 100_000)
    body = b'{"query": "' + b"x" * 60_000
    head = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-length: 70000\r\n\r\n"
    with opened(server, 2, head + body) as large:
        said = [rest(connection) for connection in large]
    assert any(b" 503 " in one for one in said), said
    is_served(server)


def test_the_log_of_refusals_is_bounded(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    for bound in limits._LOGGERS.values():
        bound._until = 0.0  # as for a server that has just started
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            with opened(server, 1, b"\0garbage\r\n\r\n") as one:
                assert b"400" in rest(one[0])
    assert 1 <= len(caplog.records) <= limits.LOGGED


def test_what_was_left_out_is_counted() -> None:
    bound = limits.Bounded(2, 3600)
    records = [logging.makeLogRecord({"msg": "refused %s", "args": (n,)}) for n in range(6)]
    assert [bound.filter(record) for record in records] == [True, True, False, False, False, False]
    bound._until = 0.0
    later = logging.makeLogRecord({"msg": "refused"})
    assert bound.filter(later)
    assert later.getMessage() == "refused (4 further messages were left out before)"


def test_answers_on_a_kept_connection_are_not_held_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nagle's algorithm waits 40 ms for the acknowledgement of a client that waits itself."""
    found = []
    made = limits.LimitedConnection.connection_made

    def look(self: Any, transport: Any) -> None:
        sock = transport.get_extra_info("socket")
        found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(limits.LimitedConnection, "connection_made", look)
    kept = http.client.HTTPConnection("127.0.0.1", port(server), timeout=WAIT)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        kept.request("GET", "/health/live")
        kept.getresponse().read()
        seconds.append(time.perf_counter() - start)
    kept.close()
    assert found == [1]
    assert min(seconds[1:]) < 0.03


# -- what is told


def test_filters_are_bounded(server: Server) -> None:
    remote = server.client()
    for where in (
        {"n": list(range(MAX_VALUES + 1))},
        "n in " + ",".join(map(str, range(100_000))),
        [f"n={i}" for i in range(1_000)],
        ["n in " + ",".join(map(str, range(3_000)))] * 2,
    ):
        start = time.perf_counter()
        with pytest.raises(FilterError, match=r"at most [0-9,]+ (values|conditions)"):
            remote.search("sea", where=where)
        assert time.perf_counter() - start < 5
    for expression in (
        "(" * 500 + "n>1" + ")" * 500,
        "not " * 5000 + "n>1",
        " or ".join(["n>1"] * 5000),
        "n>" + "1" * 70_000,
    ):
        with pytest.raises(FilterError, match="at most"):
            remote.search("sea", filter=expression)
    assert remote.search("sea", where={"n": list(range(MAX_VALUES))}, k=1).hits


def test_nobody_is_told_where_the_store_is(tmp_path: Path, short: None) -> None:
    """Neither without a token nor with one, by whatever fails."""
    path = tmp_path / "hidden-place.db"
    token = "x" * 20
    with serving(build(uri=str(path)), access("0.0.0.0", token)) as server:
        for expression in (
            "n > 1 + + 'a'",
            "metadata['a'] like",
            "n >" + " -" * 50 + "1",
            "(" * 60 + "n" + ")" * 60,
        ):
            _, said = get(server, "/search", token, {"query": "sea", "filter": expression})
            assert "hidden-place" not in said, (expression, said)
        store = server.warm._base.store
        store.drop_alias("notes")
        for _ in range(2):
            code, said = get(server, "/search?query=sea", token)
            assert (code, "hidden-place" in said, str(tmp_path) in said) == (404, False, False), said
        store._client.close()  # type: ignore[attr-defined]
        for asked in ("/search?query=sea", "/info", "/status", "/health"):
            code, said = get(server, asked, token)
            assert "hidden-place" not in said, said


# -- a silent store


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A server of Milvus Lite that can be made silent: stopped, with its connections open."""
    number = free_port()
    process = start_lite_server(tmp_path / "data", number)
    try:
        yield f"http://127.0.0.1:{number}", lambda: os.kill(process.pid, signal.SIGSTOP)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        stop(process)


def test_a_silent_store_holds_up_nobody(engine: tuple[str, Callable[[], None]]) -> None:
    uri, silence = engine
    with serving(build(uri=uri), timeout=1.0) as server:
        is_served(server)
        silence()
        start = time.perf_counter()
        with ThreadPoolExecutor(80) as pool:
            searches = [pool.submit(get, server, "/search?query=sea") for _ in range(40)]
            health = [pool.submit(get, server, "/health") for _ in range(40)]
            alive = [pool.submit(get, server, "/health/live") for _ in range(10)]
            codes = {future.result()[0] for future in searches}
            assert {future.result()[0] for future in health} <= {200, 503}
            assert {future.result()[0] for future in alive} == {200}
        assert codes == {503}
        assert time.perf_counter() - start < 10, "1 s, 1 s for the last call, and the machine"
        end = time.monotonic() + WAIT
        while get(server, "/health")[0] != 503:
            assert time.monotonic() < end, "the check sees it too"
            time.sleep(0.1)


# -- the client


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    drip(connection)


def drip_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    drip(connection)


@pytest.mark.parametrize("handle", [drip, drip_head, drip_body])
def test_a_server_that_drips_is_given_up(handle: Callable[[socket.socket], None]) -> None:
    with sink(handle) as slow:
        start = time.perf_counter()
        with pytest.raises(UnreachableError, match="does not respond"):
            connect(slow.url, timeout=0.5).search("sea")
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oops"])
def test_an_endless_answer_is_refused(status: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)

    monkeypatch.setattr(client_module, "MAX_ANSWER", 1 << 20)
    with sink(pour) as endless, pytest.raises(StoreError, match="larger than 1 MiB"):
        connect(endless.url, timeout=WAIT).search("sea")


def test_a_good_answer_is_read_whole(server: Server) -> None:
    assert len(server.client().search("sea", k=40).hits) > 20
    with pytest.raises(UsageError):
        server.client().search("sea", k=0)
