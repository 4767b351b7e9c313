"""`m3index` and `python -m m3index`."""

from __future__ import annotations

import os
import sys

from m3index import one_shot
from m3index.addresses import exempt_loopback


def _connect_streams() -> None:
    """Connects closed standard streams to the null device, so that no file of the store gets their number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def main() -> None:
    _connect_streams()
    # Ids and paths may hold what the terminal's encoding cannot: show it escaped, never crash on it.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    exempt_loopback(os.environ)
    from m3index.cli import app

    app(prog_name="m3index")


def run() -> None:
    """The command line as a process of its own."""
    one_shot.take()
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            one_shot.end(end.code or 0)
        raise


if __name__ == "__main__":
    run()
