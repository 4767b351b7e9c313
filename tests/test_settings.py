"""Flags > M3INDEX_* variables > profile > m3index.toml > defaults, and what the file may not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import Command

from m3index import settings
from m3index.errors import UsageError

COMMANDS = ("search", "ingest")
OPTIONS = {
    "search": ["uri", "k", "mode", "collection", "where"],
    "ingest": ["uri", "collection", "passage_tokens", "field"],
}


def defaults(folder: Path, text: str, profile: str | None = None) -> dict[str, dict[str, object]]:
    path = folder / "m3index.toml"
    path.write_text(text, "utf-8")
    return settings.read(path, profile, COMMANDS).defaults(OPTIONS)


def test_common_names_go_to_the_commands_that_have_them(tmp_path: Path) -> None:
    found = defaults(tmp_path, 'uri = "a.db"\nk = 3\npassage-tokens = "full"\n')
    assert found == {"search": {"uri": "a.db", "k": 3}, "ingest": {"uri": "a.db", "passage_tokens": "full"}}


def test_a_commands_table_is_its_own(tmp_path: Path) -> None:
    found = defaults(tmp_path, 'collection = "a"\n[search]\ncollection = "b"\nk = 5\n')
    assert found == {"search": {"collection": "b", "k": 5}, "ingest": {"collection": "a"}}


def test_a_profile_is_over_both(tmp_path: Path) -> None:
    text = (
        'collection = "a"\n[search]\ncollection = "b"\nk = 5\n'
        '[profile.one]\ncollection = "c"\n[profile.one.search]\nk = 6\n'
        '[profile.two.search]\ncollection = "d"\n'
    )
    assert defaults(tmp_path, text, "one") == {
        "search": {"collection": "c", "k": 6},
        "ingest": {"collection": "c"},
    }
    assert defaults(tmp_path, text, "two") == {
        "search": {"collection": "d", "k": 5},
        "ingest": {"collection": "a"},
    }


def test_fields(tmp_path: Path) -> None:
    found = defaults(
        tmp_path, '[fields]\nlang = "str"\nyear = "int"\n[profile.p.fields]\ntags = "str[]"\n', "p"
    )
    assert found == {"search": {}, "ingest": {"field": ["lang:str", "year:int", "tags:str[]"]}}


@pytest.mark.parametrize(
    ("text", "profile", "said"),
    [
        ("colection = 'x'", None, "no command has an option 'colection'"),
        ("[search]\npassage_tokens = 5", None, r"\[search\] has no option 'passage_tokens'"),
        ("[serch]\nk = 5", None, r"\[serch\] is no command"),
        ("token = 'root:Milvus'", None, "M3INDEX_TOKEN"),
        ("[search]\ntoken = 'root:Milvus'", None, "M3INDEX_TOKEN"),
        ("[profile.p]\ntoken = 'root:Milvus'", "p", "M3INDEX_TOKEN"),
        ("[profile.p]\ntoken = 'root:Milvus'", None, "M3INDEX_TOKEN"),
        ("fields = 'lang'", None, "is a table"),
        ("[fields]\nlang = 'text'", None, "no type 'text'"),
        ("[fields]\nlang = 5", None, "no type '5'"),
        ("[fields]\n'a b' = 'str'", None, "letters, digits and _"),
        ("k = ", None, "m3index.toml"),
        ("k = 1", "p", "no .profile.p.; there are: none"),
        ("[profile.a]\n[profile.b]", "p", "there are: a, b"),
        ("profile = 5", None, "is a table"),
        ("[profile]\np = 5", "p", "is a table"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_hold(tmp_path: Path, text: str, profile: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        defaults(tmp_path, text, profile)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No configuration file"):
        settings.read(tmp_path / "nothere.toml", None, COMMANDS)
    with pytest.raises(UsageError, match="--config"):
        settings.read(None, "laptop", COMMANDS)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"binary\.toml"):
        settings.read(tmp_path / "binary.toml", None, COMMANDS)


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert settings.find() is None
    user = tmp_path / "home" / "m3index" / "m3index.toml"
    user.parent.mkdir(parents=True)
    user.touch()
    assert settings.find() == user
    Path("m3index.toml").touch()
    assert settings.find() == Path("m3index.toml")
    monkeypatch.setenv("M3INDEX_CONFIG", "other.toml")
    assert settings.find() == Path("other.toml")


# -- through the command line


def test_the_order(m3index: Command, tmp_path: Path) -> None:
    """Told apart by the collection that is not there."""

    def collection(*arguments: str, **environment: str) -> str:
        done = m3index(*arguments, **environment)
        assert done.code == 10
        return done.err.split("'")[1]

    (tmp_path / "x.db").mkdir()
    status = ("status", "--uri", "x.db")
    assert collection(*status) == "m3index"
    (tmp_path / "m3index.toml").write_text('collection = "file"\n[profile.p]\ncollection = "profile"\n')
    assert collection(*status) == "file"
    assert collection("--profile", "p", *status) == "profile"
    assert collection(*status, M3INDEX_PROFILE="p") == "profile"
    assert collection("--profile", "p", *status, M3INDEX_COLLECTION="variable") == "variable"
    assert collection("--profile", "p", *status, "-c", "flag", M3INDEX_COLLECTION="variable") == "flag"
    (tmp_path / "other.toml").write_text('collection = "other"\n')
    assert collection("--config", "other.toml", *status) == "other"
    assert collection(*status, M3INDEX_CONFIG="other.toml") == "other"


def test_fields_of_the_file_are_declared(m3index: Command, dense_model: Path, corpus: Path) -> None:
    (corpus.parent / "m3index.toml").write_text(
        f'encoder = "{dense_model}"\nuri = "mine.db"\n[fields]\nlang = "str"\n[search]\nk = 2\n'
        'format = "ids"\nwhere = ["lang=en"]\nmode = "dense"\n'
    )
    assert m3index("ingest", corpus).code == 0
    assert (corpus.parent / "mine.db").is_dir()
    assert sorted(m3index("search", "fox").out.split()) == ["book-en", "fox-en"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = true", "no command has an option 'colour'"),
        ("token = 'x'", "M3INDEX_TOKEN"),
        ("k = 'many'", "'-k'"),
        ("[search]\nwhere = 'lang=en'\nk = [1]", "-k"),
    ],
)
def test_a_bad_file_is_one_line(m3index: Command, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m3index.toml").write_text(text)
    done = m3index("search", "fox")
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_bad_file_does_not_stand_before_the_help(m3index: Command, tmp_path: Path) -> None:
    (tmp_path / "m3index.toml").write_text("colour = true")
    assert m3index("--help").code == 0
    assert m3index("--version").code == 0
