"""Two more engines that PyPI carries, each installed into a venv of its own by `make engines`.

python tests/engines/servers.py COMMAND ...    runs COMMAND against Milvus 2.3.5 with users, as
                                               M3INDEX_TEST_URI and M3INDEX_TEST_TOKEN
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import free_port, stop

from m3index.errors import UnreachableError
from m3index.store.open import open_store
from m3index.store.options import Connection

VENVS = Path(__file__).parents[2] / "build" / "engines"
LITE_2_5, MILVUS_2_3 = VENVS / "milvus-lite-2.5.1", VENVS / "milvus-2.3.5"
ROOT_TOKEN = "root:Milvus"


def packages(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"))


@contextmanager
def lite_2_5(folder: Path) -> Iterator[str]:
    """Milvus Lite 2.5.1: Milvus's own core in C++ behind a thin server. Its file lies in `folder`."""
    library, port = packages(LITE_2_5) / "milvus_lite" / "lib", free_port()
    with (folder / "core.log").open("wb") as log:
        process = subprocess.Popen(
            [str(library / "milvus"), str(folder / "core.db"), f"127.0.0.1:{port}", "ERROR"],
            env={**os.environ, "LD_LIBRARY_PATH": str(library)},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(port, process, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


class Milvus23:
    """A standalone Milvus 2.3.5 (etcd and store within) with users; data in `folder`. May be killed.

    Its inner ports are its own choice; it does not end by SIGTERM.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._starter: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / "milvus.log").open("wb") as log:
            self._starter = subprocess.Popen(
                [
                    *(str(MILVUS_2_3 / "bin" / "milvus-server"), "--data", str(self.folder)),
                    *("--proxy-port", str(self.port), "--authorization-enabled", "true"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(self.port, self._starter, 150)
        self._serves()

    def _serves(self) -> None:
        """Its port is open long before it answers, above all when it has data to recover."""
        end = time.monotonic() + 180
        while True:
            try:
                store = open_store(Connection(uri=self.uri, token=ROOT_TOKEN, timeout=5))
                store.collections()
                return store.close()
            except UnreachableError:
                if time.monotonic() > end:
                    raise

    def kill(self) -> None:
        """SIGKILL to the server and its starter, which form a process group."""
        if self._starter is not None and self._starter.poll() is None:
            os.killpg(self._starter.pid, signal.SIGKILL)
            self._starter.wait()
        self._starter = None


@contextmanager
def milvus_2_3(folder: Path) -> Iterator[Milvus23]:
    server = Milvus23(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the engine ended with {process.returncode}")
        with socket.socket() as s:
            s.settimeout(0.2)
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError("the engine does not listen")


def main(command: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as folder, milvus_2_3(Path(folder) / "data") as server:
        given = {"M3INDEX_TEST_URI": server.uri, "M3INDEX_TEST_TOKEN": ROOT_TOKEN}
        return subprocess.run(command, env={**os.environ, **given}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
