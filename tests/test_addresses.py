"""No request to this machine goes to a proxy, and a wrong address is an error before anything is asked."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from servers import free_port, lite_server

from m3index.addresses import exempt_loopback, is_loopback, is_own, redacted
from m3index.errors import StoreError, UnreachableError, UsageError
from m3index.serve.client import connect
from m3index.serve.options import RemoteServer
from m3index.store.milvus import MilvusStore
from m3index.store.options import Address

VARIABLES = [
    name for base in ("http", "https", "all", "grpc") for name in (f"{base}_proxy", f"{base}_proxy".upper())
]


class RecordingProxy:
    """Answers nothing, and keeps the first bytes of each connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.received: list[bytes] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    self.received.append(connection.recv(4096))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingProxy]:
    recorder = RecordingProxy()
    for name in VARIABLES:
        monkeypatch.setenv(name, recorder.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield recorder
    recorder.close()


class _Answers(http.server.BaseHTTPRequestHandler):
    """Says what a server would say, to whatever it is asked."""

    body: bytes = b"{}"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = _answer  # noqa: N815  (names of the base class)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def answering() -> Iterator[str]:
    body = json.dumps({"collection": "docs", "code": 0, "data": {"jobId": "7"}}).encode()
    handler = type("Handler", (_Answers,), {"body": body})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_asked_without_a_proxy(
    proxy: RecordingProxy, answering: str, host: str
) -> None:
    url = answering.replace("127.0.0.1", host)
    assert connect(url, "a-secret-token").info()["collection"] == "docs"
    assert proxy.received == []


def test_another_server_is_asked_through_the_proxy(proxy: RecordingProxy) -> None:
    with pytest.raises(UnreachableError):
        connect("http://m3index.invalid:8080", timeout=5).info()
    assert proxy.received[0].startswith(b"GET http://m3index.invalid:8080/info ")


def test_milvus_on_this_machine_is_asked_without_a_proxy(proxy: RecordingProxy, tmp_path: Path) -> None:
    with lite_server(tmp_path / "served.db") as uri:
        for address in (uri, uri.replace("127.0.0.1", "localhost")):
            store = MilvusStore.open(address, "root:a-secret", timeout=20)
            assert store.collections() == []
            store.close()
    assert proxy.received == []


def test_the_local_database_is_asked_without_a_proxy(proxy: RecordingProxy, tmp_path: Path) -> None:
    store = MilvusStore.open(str(tmp_path / "local.db"))
    assert store.collections() == []
    store.close()
    assert proxy.received == []


def test_another_milvus_is_asked_through_the_proxy(proxy: RecordingProxy) -> None:
    with pytest.raises(StoreError):
        MilvusStore.open("http://milvus.invalid:19530", timeout=2)
    assert proxy.received[0].startswith(b"CONNECT milvus.invalid:19530 ")


def test_imports_on_this_machine_are_asked_without_a_proxy(proxy: RecordingProxy, answering: str) -> None:
    pytest.importorskip("pymilvus.bulk_writer", exc_type=ImportError)
    from m3index.store.bulk import ServerImporter

    assert ServerImporter(answering, "root:a-secret").submit("docs", ["a.parquet"]) == "7"
    assert proxy.received == []


def test_the_command_line_exempts_this_machine_for_all_libraries(
    proxy: RecordingProxy, answering: str
) -> None:
    program = (
        "import os, urllib.request\n"
        "from m3index.addresses import exempt_loopback\n"
        "exempt_loopback(os.environ)\n"
        f"urllib.request.urlopen({answering!r}).read()\n"
    )
    subprocess.run([sys.executable, "-c", program], env=dict(os.environ), check=True, timeout=60)
    assert proxy.received == []


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ({}, {}),
        ({"NO_PROXY": "intern"}, {"NO_PROXY": "intern"}),
        ({"no_proxy": "*", "https_proxy": "p"}, {"no_proxy": "*", "https_proxy": "p"}),
    ],
)
def test_without_a_proxy_or_for_all_hosts_nothing_is_exempted(
    given: dict[str, str], after: dict[str, str]
) -> None:
    exempt_loopback(given)
    assert given == after


def test_the_hosts_that_the_user_exempts_stay_exempt() -> None:
    environment = {"HTTP_PROXY": "p", "NO_PROXY": "intern, other"}
    exempt_loopback(environment)
    assert environment["NO_PROXY"] == "intern,other,localhost,.localhost,127.0.0.1,127.0.0.0/8,::1"
    assert environment["no_proxy"] == environment["NO_PROXY"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.1", "127.1", "::1", "::ffff:127.0.0.1"],
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example.com", "128.0.0.1", "::2", "0.0.0.0", "milvus", "10.1"]
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_own_urls() -> None:
    assert is_own("unix:/run/milvus.sock")
    assert is_own("http://root:Milvus@[::1]:19530/db")
    assert is_own("https://LocalHost")
    assert not is_own("http://127.0.0.1.example.com")
    assert not is_own("http://127.0.0.1@example.com")


def test_redacted() -> None:
    assert redacted("http://root:pa/ss@w@host:1/db") == "http://host:1/db"
    assert redacted("http://host:1/db") == "http://host:1/db"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("localhost:19530", "'localhost:19530' has no scheme. For a server, write 'http://localhost:19530'."),
        ("milvus.example.com:19530", "write 'http://milvus.example.com:19530'."),
        ("[::1]:19530", "write 'http://[::1]:19530'."),
        ("http://localhost:99999", "The port in 'http://localhost:99999' is not valid."),
        ("http://localhost:0", "The port in 'http://localhost:0' is not valid."),
        ("tcp://localhost:abc", "The port in 'tcp://localhost:abc' is not valid."),
        ("http://root:secret@localhost:99999", "The port in 'http://localhost:99999' is not valid."),
        ("http://", "'http://' names no host."),
        ("http://[::1", "is not a valid URL"),
        ("milvus://localhost:19530", "is not an address of Milvus"),
    ],
)
def test_a_wrong_uri_is_refused_before_it_is_asked(uri: str, message: str) -> None:
    for refuse in (lambda: Address(uri=uri), lambda: MilvusStore.open(uri)):
        with pytest.raises(UsageError) as error:
            refuse()
        assert message in str(error.value)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "uri", ["m3index.db", "a/b:1.db", "memory:", "unix:/run/m.sock", "http://h", "tcp://h:1"]
)
def test_a_good_uri(uri: str) -> None:
    assert Address(uri=uri).uri == uri


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8080", "takes a URL such as http://127.0.0.1:8080, not 'localhost:8080'."),
        ("http://localhost:99999", "The port in 'http://localhost:99999' is not valid."),
        ("http://localhost:abc", "The port in 'http://localhost:abc' is not valid."),
        ("http://", "'http://' names no host."),
    ],
)
def test_a_wrong_server_is_refused_before_it_is_asked(url: str, message: str) -> None:
    for refuse in (lambda: connect(url), lambda: RemoteServer(server=url)):
        with pytest.raises(UsageError) as error:
            refuse()
        assert message in str(error.value)


def test_a_port_that_is_free_is_not_a_wrong_port() -> None:
    with pytest.raises(UnreachableError):
        connect(f"http://127.0.0.1:{free_port()}", timeout=1).info()
