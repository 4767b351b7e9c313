"""`m3index search`: what it prints, for people and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from terminal import ROWS, Command, Done, configure

from m3index import schema
from m3index.cli.show import by_chance

HIT = Draft202012Validator(schema.load("hit.schema.json"))
EVENT = Draft202012Validator(schema.load("event.schema.json"))

Search = Callable[..., Done]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, m3_model: Path) -> Path:
    from m3index import Document, Index

    path = tmp_path_factory.mktemp("search") / "m3.db"
    documents = [
        Document(r["id"], r["text"], r.get("title", ""), {"lang": r["lang"], "year": r["year"]}) for r in ROWS
    ]
    long = " ".join(f"a long text about search and books number {i}." for i in range(40))
    documents.append(Document("long-en", long, "A title that is so long " * 8, {"lang": "en", "year": 9}))
    with Index(uri=str(path), encoder=str(m3_model)) as index:
        index.ingest(documents, fields={"lang": "str", "year": "int"})
    return path


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory, m3_model: Path) -> Path:
    """Enough documents for fusion by evidence."""
    from m3index import Document, Index

    path = tmp_path_factory.mktemp("thirty") / "m3.db"
    words = ["fox", "dog", "tide", "bee", "sea", "moon", "book", "stone", "river", "bread", "quick", "brown"]
    texts = [" ".join(words[(i * j + j) % 12] for j in range(1, 4 + i % 5)) for i in range(30)]
    with Index(uri=str(path), encoder=str(m3_model)) as index:
        index.ingest(Document(f"d{i}", text) for i, text in enumerate(texts))
    return path


@pytest.fixture
def thirty(m3index: Command, larger: Path) -> Search:
    return lambda *arguments: m3index("search", *arguments, "--uri", larger)


@pytest.fixture
def search(m3index: Command, database: Path) -> Search:
    return lambda *arguments, **more: m3index("search", *arguments, "--uri", database, **more)


def test_json_is_only_json_and_follows_the_schemas(search: Search) -> None:
    done = search("the quick brown fox", "--json", "--explain")
    assert (done.code, done.err) == (0, "")
    *hits, summary = done.lines
    assert len(hits) > 5
    for hit in hits:
        HIT.validate(hit)
    EVENT.validate(summary)
    assert (summary["type"], summary["hits"], summary["exit"]) == ("summary", len(hits), 0)
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    assert {leg for hit in hits for leg in hit["legs"]} == {"dense", "sparse"}


def test_jsonl_is_the_hits_alone(search: Search) -> None:
    lines = search("fox", "--format", "jsonl", "-k", 3).lines
    assert [line["type"] for line in lines] == ["hit"] * 3


def test_ids(search: Search) -> None:
    ids = search("fox", "--format", "ids", "-k", 3).out.splitlines()
    assert ids == [hit["doc_id"] for hit in search("fox", "-k", 3, "--json").hits]


def test_trec(search: Search) -> None:
    lines = search("fox", "--format", "trec", "-k", 3).out.splitlines()
    assert [line.split()[3] for line in lines] == ["1", "2", "3"]
    assert all(line.split()[1] == "Q0" and len(line.split()) == 6 for line in lines)
    scores = [float(line.split()[4]) for line in lines]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("options", [[], ["--explain"], ["--passages"], ["--rerank", "colbert"]])
@pytest.mark.parametrize("query", ["the quick brown fox reads a book about search", "狐狸 懒狗"])
def test_a_pipe_gets_plain_text_of_80_columns(search: Search, query: str, options: list[str]) -> None:
    out = search(query, *options).out
    assert "\x1b" not in out
    assert "score" in out
    for line in out.splitlines():
        assert cell_len(line) <= 80, line
        assert line == line.rstrip()


def test_colours_can_be_asked_for(search: Search) -> None:
    assert "\x1b[" in search("fox", FORCE_COLOR="1").out


def test_a_narrow_terminal(search: Search) -> None:
    assert all(cell_len(line) <= 50 for line in search("a book about search", COLUMNS="50").out.splitlines())


def test_boosts_are_shown_with_their_factors_and_where_the_hits_were(search: Search) -> None:
    plain = search("fox", "--format", "ids").out.splitlines()
    last = plain[-1]
    boost = f"doc_id={last}: 1000"
    done = search("fox", "--boost", boost, "--boost", "year: gauss(2026, scale=3)", "--explain", "-k", 1)
    assert f"(was {len(plain)})" in done.out
    assert "boosted " in done.out
    assert f"boost {boost} -> x 1000" in done.out
    assert "boost year: gauss(2026, scale=3) -> x " in done.out
    assert search("fox", "--boost", boost, "--format", "ids").out.splitlines() == [last, *plain[:-1]]


def test_a_sort_and_pages(search: Search) -> None:
    whole = search("fox", "--sort", "year:desc", "--format", "ids").out.splitlines()
    pages = [search("fox", "--sort", "year:desc", "--format", "ids", "-k", 3, "--page", n) for n in (1, 2, 3)]
    assert [line for page in pages for line in page.out.splitlines()] == whole[:9]
    assert whole != search("fox", "--format", "ids").out.splitlines()
    assert "(was " in search("fox", "--sort", "year").out


def test_one_hit_is_one_hit(search: Search) -> None:
    assert "\n1 hit in " in search("fox", "-k", 1).out
    assert "\n2 hits in " in search("fox", "-k", 2).out


def test_no_hits(search: Search) -> None:
    done = search("fox", "--where", "year>100")
    assert (done.code, done.out) == (0, "No hits.\n")


def test_modes_are_the_legs(search: Search) -> None:
    assert set(search("fox", "--mode", "dense", "-k", 1, "--json").hits[0]["legs"]) == {"dense"}
    assert set(search("the quick brown fox", "--mode", "sparse", "-k", 1, "--json").hits[0]["legs"]) == {
        "sparse"
    }


def test_weights_change_the_order(search: Search) -> None:
    def ids(*options: object) -> list[str]:
        return search("the quick brown fox", "--format", "ids", *options).out.split()

    assert ids("--weights", "dense=1,sparse=0") == ids("--mode", "dense")
    assert ids("--weights", "dense=0,sparse=1") == ids("--mode", "sparse")
    hit = search("the quick brown fox", "--weights", "dense=0.7,sparse=0.3", "--rrf-k", 10, "--json").hits[0]
    assert hit["legs"]["dense"]["contribution"] == pytest.approx(0.7 / (10 + hit["legs"]["dense"]["rank"]))
    assert hit["score"] == pytest.approx(sum(leg["contribution"] for leg in hit["legs"].values()))


def test_group_by(search: Search) -> None:
    hits = search("fox", "--group-by", "lang", "--json").hits
    assert len({hit["group"] for hit in hits}) == len(hits)


def test_similar(search: Search) -> None:
    hits = search("--similar", "fox-en", "--json", "-k", 3).hits
    assert len(hits) == 3
    assert "fox-en" not in [hit["doc_id"] for hit in hits]


def test_explain_names_what_matched(search: Search) -> None:
    out = search("the quick brown fox", "--explain", "-k", 1).out
    assert "matched: " in out
    assert "fox" in out.split("matched: ")[1]


def test_explain_says_what_chance_would_find(thirty: Search) -> None:
    asked = ("the quick brown fox", "--fusion", "evidence", "--explain", "-k", 1)
    [hit] = thirty(*asked, "--json").hits
    assert set(hit["legs"]) == {"dense", "sparse"}
    out = " ".join(thirty(*asked).out.split())
    for name, leg in hit["legs"].items():
        assert f"{name}: {by_chance(leg['by_chance'])}, a vote of {leg['contribution']:.2f}" in out


def test_explain_says_when_ranks_are_fused_after_all(search: Search) -> None:
    """The collection has fewer than ten documents."""
    done = search("the quick brown fox", "--fusion", "evidence", "--explain", "-k", 1)
    assert "The ranks were fused" in done.err
    assert "by chance" not in done.out


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        (0.0, "less than 0.0001 documents"),
        (0.00314, "0.0031 documents"),
        (1.0, "1 document "),
        (97.6, "98 documents"),
    ],
)
def test_the_words_of_a_vote(documents: float, says: str) -> None:
    assert by_chance(documents).startswith(f"by chance {says}")


def test_the_weights_that_explain_names_do_what_it_says(thirty: Search) -> None:
    """Two searches, a little on each side of the share, with the same fusion."""
    fusion = ("--fusion", "evidence", "-k", 30, "--json")
    checked = 0
    for query in ("the quick brown fox", "moon river", "a bee and a stone"):
        hits = thirty(query, *fusion, "--explain").hits
        for hit in hits[:4]:
            for crossing in hit["explanation"]["crossings"][:1]:
                other, share = hits[crossing["hit"] - 1], crossing["share"]
                for side in (-1e-6, 1e-6):
                    weights = f"dense={1 - share - side},sparse={share + side}"
                    ids = [h["passage_id"][:32] for h in thirty(query, *fusion, "--weights", weights).hits]
                    places = [ids.index(h["passage_id"][:32]) for h in (hit, other)]
                    assert (places[0] < places[1]) == (crossing["overtakes"] == (side > 0))
                checked += 1
    assert checked >= 3


def test_explain_names_the_hits_of_its_page(thirty: Search) -> None:
    asked = ("the quick brown fox", "--explain", "-k", 5, "--page", 2)
    hits = thirty(*asked, "--json").hits
    names = {hit["rank"]: hit["doc_id"] for hit in hits}
    out = thirty(*asked).out
    said = re.findall(r"^ +(?:overtakes|falls behind) (\S+) when", out, re.MULTILINE)
    assert said == [
        names[crossing["hit"]] for hit in hits for crossing in hit["explanation"]["crossings"][:3]
    ]
    assert said


def test_options_from_the_file_and_over_it(search: Search, tmp_path: Path) -> None:
    configure('[search]\nk = 2\nformat = "ids"\n')
    assert len(search("fox").out.split()) == 2
    assert len(search("fox", "-k", 1).out.split()) == 1


def test_what_selects_is_no_variable(search: Search) -> None:
    """A variable that was exported for something else must not narrow a search, or print another form."""
    plain = search("fox", "--json").hits
    exported = {"WHERE": "lang=en", "FILTER": 'lang == "en"', "SOURCE": "other", "K": "1", "FORMAT": "ids"}
    for name, value in exported.items():
        assert search("fox", "--json", **{f"M3INDEX_{name}": value}).hits == plain, name


def test_a_query_needs_no_quotes(search: Search) -> None:
    asked = search("the", "quick", "brown", "fox", "--json", "-k", 3)
    assert asked.code == 0
    assert asked.hits == search("the quick brown fox", "--json", "-k", 3).hits
    assert search("the", "-k", 3, "quick", "brown", "--json", "fox").hits == asked.hits


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--where", "'' is not a condition"),
        ("--filter", "--filter takes a non-empty text, not ''"),
        ("--tenant", "--tenant is empty"),
        ("--source", "--source takes a non-empty text, not ''"),
    ],
)
def test_an_empty_filter_is_not_everything(search: Search, option: str, said: str) -> None:
    """As from `--where "$CONDITION"` with a variable that was never set."""
    done = search("fox", option, "")
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    both = search("fox", "--where", "lang=en", "--where", "")
    assert (both.code, both.out) == (2, "")


def test_a_document_cannot_command_the_terminal(m3index: Command, dense_model: Path) -> None:
    row = {
        "id": "a\nb\x1b[2J",
        "title": "\x1b]0;title\x07\nsecond",
        "text": "fox \x1b[31mred\r\x9b1m",
        "x": "\x1b",
    }
    assert m3index("ingest", "-", "-e", dense_model, stdin=json.dumps(row) + "\n{\x1b\n").code == 3
    done = m3index("search", "fox", "--explain", FORCE_COLOR="")
    assert done.code == 0
    assert not set(done.out) & {"\x1b", "\x07", "\r", "\x9b"}
    assert "�" in done.out
    assert m3index("search", "fox", "--json").hits[0]["doc_id"] == row["id"]


@pytest.mark.parametrize("form", ["ids", "trec"])
def test_an_id_that_a_line_cannot_hold_is_refused(m3index: Command, dense_model: Path, form: str) -> None:
    m3index("ingest", "-", "-e", dense_model, stdin='{"id": "a\\nb", "text": "fox"}\n')
    done = m3index("search", "fox", "--format", form)
    assert (done.code, done.out) == (2, "")
    assert "--format jsonl" in done.err


# -- phrases, exclusions, facets, synonyms


def test_phrases_and_exclusions(search: Search, m3index: Command, database: Path) -> None:
    plain = search("fox", "--format", "ids").out.split()
    assert "fox-en" in plain
    done = search('"quick brown fox"', "--format", "ids")
    assert (done.code, done.out.split()) == (0, ["fox-en"])
    assert 'With the phrase "quick brown fox": 1 of' in done.err
    for words in (["fox -quick"], ["--", "fox", "-quick"]):
        done = m3index("search", "--format", "ids", "--uri", database, *words)
        assert "fox-en" not in done.out.split()
        assert done.out.split()
        assert 'Left out for "quick": 1 of' in done.err
    done = search("fox -quick", "--syntax", "plain", "--format", "ids")
    assert "fox-en" in done.out.split()
    done = search("fox -quick", "--json")
    assert done.summary["notes"][0].startswith('Left out for "quick": 1 of')


@pytest.mark.parametrize("word", ["-bees", "-cats", "-kings", "-quick", "-x", "-été", "-蜂"])
def test_an_exclusion_that_would_be_read_as_an_option_is_explained(m3index: Command, word: str) -> None:
    done = m3index("search", "honey", word)
    assert (done.code, done.out) == (2, "")
    said = " ".join(done.err.split())
    assert f"{word} is read as an option." in said
    assert f"m3index search -- honey {word}" in said
    assert (f"Write {word[:2]} {word[2:]} to give the option {word[:2]}, or --" in said) is (
        word[:2] in ("-c", "-k", "-q")
    )
    why = m3index("why", "honey", word, "d1").err
    assert f"m3index why -- honey {word}" in " ".join(why.split())


@pytest.mark.parametrize("word", ["-5", "-40°C"])
def test_a_number_that_would_be_read_as_an_option_is_explained(m3index: Command, word: str) -> None:
    done = m3index("search", "honey", word, "degrees")
    assert (done.code, done.out) == (2, "")
    said = " ".join(done.err.split())
    assert f"{word} is read as an option. Write -- before the query to search for this number" in said
    assert f"m3index search -- honey {word}" in said


@pytest.mark.parametrize("words", [["-k3"], ["-k", "3"], ["-c", "docs"], ["-q"], ["--tag", "-bees"]])
def test_options_are_read_as_before(search: Search, words: list[str]) -> None:
    assert "is read as an option" not in search("fox", *words).err


def test_facets(search: Search) -> None:
    done = search("fox", "--facets", "lang", "--facets", "year", "-k", 2)
    assert done.code == 0
    table = done.out.split("facet")[1].splitlines()
    assert table[0].split() == ["value", "documents"]
    assert table[1].split() == ["lang", "en", "2"]
    assert not any("other" in line for line in table)
    done = search("fox", "--facets", "lang", "--facets-over", "filter", "--where", "lang=en", "--json")
    EVENT.validate(done.summary)
    assert done.summary["facets"]["lang"] == {
        "values": [{"value": "en", "count": 2}], "others": 0, "documents": 2, "is_lower_bound": False,
    }  # fmt: skip
    done = search("fox", "--facets", "lang", "--format", "ids")
    assert "lang (7 documents): en 2, " in done.err
    assert "facet" not in done.out
    wrong = search("fox", "--facets", "colour")
    assert (wrong.code, "no field 'colour' to count" in wrong.err) == (2, True)
    wrong = search("--queries", "q.tsv", "-o", "run.trec", "--facets", "lang")
    assert (wrong.code, "--facets are of a single query" in wrong.err) == (2, True)


def test_synonyms(search: Search, tmp_path: Path) -> None:
    (tmp_path / "synonyms.txt").write_text("reynard => fox\n", encoding="utf-8")
    assert search("reynard", "--mode", "sparse", "--format", "ids").out == ""
    done = search("reynard", "--mode", "sparse", "--synonyms", "synonyms.txt", "--explain")
    assert 'Synonyms of "reynard", for the sparse leg: fox.' in done.err
    assert "fox" in done.out
    (tmp_path / "wrong.txt").write_text("a, b\nc\n", encoding="utf-8")
    wrong = search("reynard", "--synonyms", "wrong.txt")
    assert (wrong.code, "wrong.txt, line 2: it has a single term." in wrong.err) == (2, True)
    there = search("reynard", "--synonyms", "synonyms.txt", "--server", "http://127.0.0.1:9")
    assert (there.code, "A server has its own synonyms" in there.err) == (2, True)
    (tmp_path / "m3index.toml").write_text('synonyms = "synonyms.txt"\n', encoding="utf-8")
    untrusted = search("reynard")
    assert (untrusted.code, "sets synonyms, and you have not said that you trust it" in untrusted.err) == (
        2,
        True,
    )
