"""`m3index` and `python -m m3index`."""

from __future__ import annotations

import sys


def main() -> None:
    # Ids and paths may hold what the terminal's encoding cannot: show it escaped, never crash on it.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    from m3index.cli import app

    app(prog_name="m3index")


if __name__ == "__main__":
    main()
