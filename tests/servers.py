"""Real servers for the tests: `milvus-lite server` on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def lite_server(folder: Path, *, port: int | None = None) -> Iterator[str]:
    """`milvus-lite server` over gRPC with its data in `folder`; yields the URI, ends by SIGTERM."""
    port = port or free_port()
    process = start_lite_server(folder, port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def start_lite_server(folder: Path, port: int, wait: float = 60.0) -> subprocess.Popen[bytes]:
    """Starts the server and waits until it listens. The caller ends it with `stop`."""
    command = [
        str(Path(sys.executable).parent / "milvus-lite"),
        *("server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)),
    ]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"milvus-lite server ended with {process.returncode}")
        with socket.socket() as s:
            s.settimeout(0.2)
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    stop(process)
    raise RuntimeError("milvus-lite server does not listen")


def stop(process: subprocess.Popen[bytes], sign: int = signal.SIGTERM) -> None:
    if process.poll() is None:
        os.kill(process.pid, sign)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
