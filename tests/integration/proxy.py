"""A proxy between m3index and a Milvus server that injects the faults of networks and servers.

client -> Wire (TCP, can reset every connection) -> Proxy (gRPC, raw bytes) -> server
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message_factory import GetMessageClass
from pymilvus.grpc_gen import milvus_pb2

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
MESSAGE_BYTES = 256 * 2**20
RATE_LIMIT = 8
NO_DEADLINE = 3_600.0
"""The maximum deadline in seconds; a call without one reports centuries, which gRPC cannot represent."""


class Fault(StrEnum):
    """The outcome of one call."""

    REFUSED = "UNAVAILABLE, the server never saw it"
    LOST = "the server did it, the answer is UNAVAILABLE"
    EXPIRED = "the server did it, the answer is DEADLINE_EXCEEDED"
    TWICE = "the server did it twice, the second answer is given"
    SLOW = "the server sees it later"
    SILENT = "the server did it, and the answer does not come while the client waits"
    BUSY = "Milvus's answer of a server over its rate limit; not done"
    TOO_LARGE = "RESOURCE_EXHAUSTED, not done"
    RESET = "the server did it, and every connection is reset"


Plan = Callable[[str, int], "Fault | None"]
"""Called with the name of the method (`Upsert`) and the number of the call, from 1."""


def seeded(seed: int, share: float) -> Plan:
    """Applies a random fault to a share of all calls, except the two kinds that a test must wait for."""
    chance = random.Random(seed)
    kinds = [fault for fault in Fault if fault is not Fault.SILENT]

    def plan(_: str, __: int) -> Fault | None:
        return chance.choice(kinds) if chance.random() < share else None

    return plan


def first(method: str, fault: Fault, times: int = 1) -> Plan:
    """Applies a fault to the first `times` calls of a method."""
    left = iter(range(times))
    return lambda name, _: fault if name == method and next(left, None) is not None else None


class Proxy(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Forwards unary calls unchanged. plan: may be changed at any time. met: counts the faults."""

    def __init__(self, channel: grpc.Channel, wire: Wire) -> None:
        self.plan: Plan | None = None
        self.met: Counter[Fault] = Counter()
        self.uri = f"http://127.0.0.1:{wire.port}"
        self._channel, self._wire = channel, wire
        self._calls = 0
        self._lock = threading.Lock()

    def service(self, details: Any) -> Any:
        path = details.method
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._answer(path, request, context)
        )

    def _answer(self, path: str, request: bytes, context: Any) -> bytes:
        method = path.rpartition("/")[2]
        with self._lock:
            self._calls += 1
            fault = self.plan(method, self._calls) if self.plan else None
            if fault is not None:
                self.met[fault] += 1
        match fault:
            case Fault.REFUSED:
                context.abort(grpc.StatusCode.UNAVAILABLE, "refused by the proxy")
            case Fault.TOO_LARGE:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large for the proxy")
            case Fault.BUSY:
                return _busy(method)
            case Fault.SLOW:
                time.sleep(0.2)
            case Fault.TWICE:
                self._forward(path, request, context)
        answer = self._forward(path, request, context)
        match fault:
            case Fault.LOST:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost by the proxy")
            case Fault.EXPIRED:
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the answer came too late to the proxy")
            case Fault.SILENT:
                while context.is_active():
                    time.sleep(0.05)
            case Fault.RESET:
                self._wire.reset()
        return answer

    def _forward(self, path: str, request: bytes, context: Any) -> bytes:
        own = ("user-agent", "grpc-", ":", "te", "content-type")
        metadata = [(k, v) for k, v in context.invocation_metadata() if not k.startswith(own)]
        left = context.time_remaining()
        try:
            answer: bytes = self._channel.unary_unary(path)(
                request, timeout=min(left, NO_DEADLINE) if left else None, metadata=metadata
            )
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())  # type: ignore[attr-defined]  # it is a call too
        return answer


def _busy(method: str) -> bytes:
    """The response type of the method, with the status of a rate limit."""
    answer = GetMessageClass(SERVICE.methods_by_name[method].output_type)()
    status = getattr(answer, "status", answer)
    status.code, status.reason = RATE_LIMIT, "rate limit exceeded (proxy)"
    payload: bytes = answer.SerializeToString()
    return payload


class Wire:
    """A TCP relay from a free port of 127.0.0.1 to another port; `reset` cuts every connection with RST."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def start(self, port: int) -> None:
        threading.Thread(target=self._accept, args=(port,), daemon=True).start()

    def _accept(self, port: int) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                with self._lock:
                    self._open |= {near, far}
                threading.Thread(target=self._relay, args=(near, far), daemon=True).start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with suppress(OSError, ValueError):  # one end has closed
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(65_536)
                    if not data:
                        return self._close(near, far)
                    other[ready].sendall(data)
        return self._close(near, far)

    def _close(self, *sockets: socket.socket) -> None:
        with self._lock:
            for one in sockets:
                self._open.discard(one)
                one.close()

    def reset(self) -> None:
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.shutdown(socket.SHUT_RD)  # wakes the relay, which closes the socket

    def close(self) -> None:
        self._listener.close()
        self.reset()


@contextmanager
def proxied(uri: str, *, max_message: int = MESSAGE_BYTES, kind: type[Proxy] = Proxy) -> Iterator[Proxy]:
    """Starts a proxy for the server at `uri`. max_message: the maximum number of bytes per request."""
    whole = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    wire = Wire()
    channel = grpc.insecure_channel(urlsplit(uri).netloc, options=whole)
    proxy = kind(channel, wire)
    server = grpc.server(
        futures.ThreadPoolExecutor(8),
        handlers=[proxy],
        options=[("grpc.max_receive_message_length", max_message), whole[1]],
    )
    wire.start(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    try:
        yield proxy
    finally:
        wire.close()
        server.stop(0).wait()
        channel.close()
