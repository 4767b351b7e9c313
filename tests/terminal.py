"""Running the command line in tests: what a command came to, and a small corpus to give it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3index import settings

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("M3INDEX_DATA") or REPOSITORY.parent / "shared" / "data")
KEPT = ("M3INDEX_DATA", "M3INDEX_TEST_URI", "M3INDEX_TEST_TOKEN")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        last = self.lines[-1]
        assert last["type"] == "summary"
        return last

    @property
    def hits(self) -> list[dict[str, Any]]:
        return [without_stamp(line) for line in self.lines if line["type"] == "hit"]


def without_stamp(line: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON line without its time and its run, which differ each time."""
    return {name: value for name, value in line.items() if name not in ("time", "run")}


Command = Callable[..., Done]


def configure(text: str, folder: Path = Path()) -> None:
    """Writes m3index.toml into a folder and trusts it, like its owner."""
    settings.write_trusted(folder / settings.FILE_NAME, text)


def process_environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("M3INDEX_") or k in KEPT}
    return kept | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **more}


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


ROWS: Sequence[Mapping[str, Any]] = (
    {
        "id": "fox-en",
        "title": "Fox",
        "text": "the quick brown fox jumps over the lazy dog",
        "lang": "en",
        "year": 1,
    },
    {"id": "fox-fr", "text": "le renard brun saute par-dessus le chien paresseux", "lang": "fr", "year": 2},
    {
        "id": "fox-de",
        "text": "der schnelle braune Fuchs springt über den faulen Hund",
        "lang": "de",
        "year": 3,
    },
    {"id": "fox-ru", "text": "быстрая коричневая лиса прыгает через ленивую собаку", "lang": "ru", "year": 4},
    {
        "id": "fox-zh",
        "title": "狐狸",
        "text": "敏捷的棕色狐狸跳过懒狗并阅读一本关于搜索的书",
        "lang": "zh",
        "year": 5,
    },
    {"id": "fox-th", "text": "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ", "lang": "th", "year": 6},
    {"id": "book-en", "text": "reads a book about search", "lang": "en", "year": 7},
)
