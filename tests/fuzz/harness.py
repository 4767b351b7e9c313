"""One target under Atheris (`make fuzz`).

python tests/fuzz/harness.py rows|parquet|filter [options of libFuzzer] [folders of inputs]
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["m3index"]):
    import properties

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], properties.TARGETS[sys.argv[1]])
    atheris.Fuzz()
