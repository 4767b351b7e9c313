"""Messages count correctly: `1 row`, not `1 rows`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from messages import literals

from m3index.wording import many, short_names

PACKAGE = Path(__file__).resolve().parent.parent / "m3index"
NOUNS = (
    "document|row|passage|file|generation|shard|deletion|query|querie|hit|collection|job|task|actor|entry|"
    "entrie|difference"
)
COUNTED = re.compile(rf"(?<!of )(?<!of the )(?<!most )(?<!than )\{{}} ({NOUNS})s\b(?!/s)")


def test_many() -> None:
    assert many(1, "row") == "1 row"
    assert many(0, "row") == "0 rows"
    assert many(2_000, "row") == "2,000 rows"
    assert many(1, "row is", "rows are") == "1 row is"
    assert many(2, "row is", "rows are") == "2 rows are"


def test_short_names_tell_paths_apart_and_no_more() -> None:
    assert list(short_names(["/data/xquad/ar", "/data/xquad/de", "/data/scifact"])) == [
        "xquad/ar",
        "xquad/de",
        "scifact",
    ]
    assert short_names(["/data/sts/de.tsv"]) == {"de.tsv": Path("/data/sts/de.tsv")}
    assert list(short_names(["here", "/here"])) == [str(Path("here").absolute())[1:], "here"]
    assert short_names([]) == {}


@pytest.mark.parametrize("room", sorted({p.relative_to(PACKAGE).parts[0] for p in PACKAGE.rglob("*.py")}))
def test_no_message_counts_by_itself(room: str) -> None:
    """A number before a noun in the plural comes from `many`, which knows the singular."""
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in sorted([*(PACKAGE / room).rglob("*.py"), PACKAGE / room])
        if path.is_file()
        for line, text in literals(path)
        if COUNTED.search(text)
    ]
    assert found == []
