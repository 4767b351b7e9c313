"""A real gRPC server of Milvus Lite's engine that can be told to fail, and that remembers its requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

RESPONSES: dict[str, Callable[[common_pb2.Status], Any]] = {
    "Upsert": lambda s: milvus_pb2.MutationResult(status=s),
    "Delete": lambda s: milvus_pb2.MutationResult(status=s),
    "Query": lambda s: milvus_pb2.QueryResults(status=s),
    "Search": lambda s: milvus_pb2.SearchResults(status=s),
    "Flush": lambda s: milvus_pb2.FlushResponse(status=s),
    "Connect": lambda s: milvus_pb2.ConnectResponse(status=s),
    "DescribeAlias": lambda s: milvus_pb2.DescribeAliasResponse(status=s),
    "CreateIndex": lambda s: s,
}


@dataclass
class Failure:
    """One answer that fails: a Milvus code in the status, or a gRPC status. done: the call is carried out."""

    code: int | grpc.StatusCode
    reason: str = "made to fail"
    retriable: bool = False
    done: bool = False


Plan = Callable[[Any], Failure | Any | None]
"""Asked with each request: a Failure, another response to give, or None to let it pass."""


@dataclass
class Faults(grpc.ServerInterceptor):  # type: ignore[misc]
    plans: dict[str, Plan] = field(default_factory=dict)
    requests: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def times(self, method: str, failure: Failure, times: int) -> None:
        """The next `times` calls of the method fail."""
        left = iter(range(times))
        self.plans[method] = lambda _: failure if next(left, None) is not None else None

    def lose_answers(self, method: str, failure: Failure, times: int) -> None:
        """The next `times` calls of the method are carried out, and fail all the same."""
        self.times(method, replace(failure, done=True), times)

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        method = details.method.rpartition("/")[2]

        def answer(request: Any, context: Any) -> Any:
            self.requests[method].append(request)
            planned = self.plans[method](request) if method in self.plans else None
            if planned is None:
                return handler.unary_unary(request, context)
            if not isinstance(planned, Failure):
                return planned
            if planned.done:
                handler.unary_unary(request, context)
            if isinstance(planned.code, grpc.StatusCode):
                context.abort(planned.code, planned.reason)
            return RESPONSES[method](
                common_pb2.Status(code=planned.code, reason=planned.reason, retriable=planned.retriable)
            )

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


class Servicer(MilvusServicer):  # type: ignore[misc]
    def __init__(self, db: MilvusLite, version: str | None) -> None:
        super().__init__(db)
        self.version = version

    def GetVersion(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.version is None:
            return super().GetVersion(request, context)
        return milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version=self.version)


@contextmanager
def faulty_server(
    folder: Path,
    *,
    version: str | None = None,
    port: int = 0,
    max_message: int = 64 * 2**20,
    servicer: type[Servicer] = Servicer,
) -> Iterator[tuple[str, Faults]]:
    """version: what it says to be, so that it may pass for a Milvus server."""
    faults = Faults()
    db = MilvusLite(str(folder))
    server = grpc.server(
        futures.ThreadPoolExecutor(4),
        interceptors=[faults],
        options=[
            ("grpc.max_receive_message_length", max_message),
            ("grpc.max_send_message_length", max_message),
        ],
    )
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(servicer(db, version), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"http://127.0.0.1:{bound}", faults
    finally:
        server.stop(0).wait()
        db.close()
