"""`m3index config show`, `m3index init`, and values from m3index.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from terminal import Command


def shown(
    m3index: Command, command: str, *first: object, **environment: str
) -> dict[str, tuple[object, str]]:
    done = m3index(*first, "config", "show", command, "--json", **environment)
    assert done.code == 0, done.err
    return {line["name"]: (line["value"], line["from"]) for line in done.lines if line["type"] == "setting"}


def test_the_origin_is_the_file_that_was_read(m3index: Command) -> None:
    Path("m3index.toml").write_text('uri = "here.db"\n')
    Path("other.toml").write_text('uri = "other.db"\n')
    assert shown(m3index, "status")["--uri"] == ("here.db", "m3index.toml")
    assert shown(m3index, "status", "--config", "other.toml")["--uri"] == ("other.db", "other.toml")


def test_an_empty_variable_counts_for_nothing(m3index: Command) -> None:
    Path("m3index.toml").write_text('tenant = "acme"\n')
    assert shown(m3index, "search", M3INDEX_TENANT="")["--tenant"] == ("acme", "m3index.toml")
    assert shown(m3index, "search", M3INDEX_TENANT="x")["--tenant"] == ("x", "M3INDEX_TENANT")


def test_a_profile_sets_the_layout(m3index: Command) -> None:
    Path("m3index.toml").write_text(
        '[profile.s]\nstorage = "fp16"\nindex-class = "large"\nindex = ["dense.nlist=16", "rows.mmap=true"]\n'
        'tenant-field = "org"\nprecision = "int8"\n[profile.s.search]\ntenant = "acme"\n'
    )
    found = shown(m3index, "ingest", "--profile", "s")
    names = ("--storage", "--index-class", "--tenant-field", "--precision", "--tenant")
    assert [found[name][0] for name in names] == ["fp16", "large", "org", "int8", "all"]
    assert shown(m3index, "search", "--profile", "s")["--tenant"][0] == "acme"
    told = m3index("--profile", "s", "config", "show", "ingest").out
    assert "dense.nlist=16 rows.mmap=true  (m3index.toml)" in told


def test_what_may_be_repeated_may_be_one_word(m3index: Command, dense_model: Path, corpus: Path) -> None:
    Path("m3index.toml").write_text(f'encoder = "{dense_model}"\nfield = "lang:str"\nwhere = "lang=de"\n')
    assert m3index("ingest", corpus).code == 0
    hits = m3index("search", "sea", "--json").lines[:-1]
    assert {hit["metadata"]["lang"] for hit in hits} == {"de"}


@pytest.mark.parametrize("name", ["docs", "my docs"])
def test_init_asks_for_a_name_that_a_collection_can_have(
    m3index: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("m3index.cli.config._asked", lambda: True)
    done = m3index("init", stdin=f"http://h:1\n{name}\noffline\n")
    if name == "docs":
        written = tomllib.loads(Path("m3index.toml").read_text("utf-8"))
        assert (written["uri"], written["collection"], written["encoder"]) == (
            "http://h:1",
            "docs",
            "offline",
        )
    else:
        assert (done.code, "letters, digits and _" in done.err) == (2, True)
        assert not Path("m3index.toml").exists()


def test_every_name_in_the_written_file_is_one(m3index: Command) -> None:
    assert m3index("init", "--yes").code == 0
    text = Path("m3index.toml").read_text("utf-8")
    lines = [
        line.removeprefix("# ") if " = " in line and line.count("=") < 4 else line
        for line in text.splitlines()
    ]
    Path("m3index.toml").write_text("\n".join(lines) + "\n", "utf-8")
    assert shown(m3index, "ingest")["--tenant-field"] == ("org", "m3index.toml")
