from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from search.corpus import Doc, collection

from m3index.errors import UsageError
from m3index.search.options import SearchOptions
from m3index.search.searcher import Searcher
from m3index.search.synonyms import NONE, Synonyms, parse_synonyms, read_synonyms
from m3index.search.trust import share

FILE = """# animals
bee, honeybee, apis mellifera

usa => united states, america
蜜蜂, 蜂
a\\,b => comma
"""


def rules(text: str = FILE) -> Synonyms:
    return parse_synonyms(text.splitlines())


@pytest.mark.parametrize(
    ("query", "searched"),
    [
        ("a bee", "a bee honeybee apis mellifera"),
        ("BEE!", "BEE! honeybee apis mellifera"),
        ("Apis Mellifera", "Apis Mellifera bee honeybee"),
        ("apis", "apis"),
        ("bees", "bees"),
        ("the usa", "the usa united states america"),
        ("united states", "united states"),
        ("关于蜜蜂", "关于蜜蜂 蜂"),
        ("a,b", "a,b comma"),
        ("bee bee", "bee bee honeybee apis mellifera"),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_synonyms_are_appended(query: str, searched: str) -> None:
    assert rules().expand(query).text == searched


def test_the_longest_term_counts() -> None:
    synonyms = rules("new york => nyc\nyork => eboracum")
    assert synonyms.expand("new york").text == "new york nyc"
    assert synonyms.expand("york new york").text == "york new york eboracum nyc"


def test_rules_of_one_term_add_up() -> None:
    assert rules("a, b\na => c").expand("a").text == "a b c"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a", "it has a single term"),
        ("a,,b", "a term is empty"),
        ("a, ", "a term is empty"),
        ("=> b", "a term is empty"),
        ("a =>", "a term is empty"),
        ("a => b => c", "more than one =>"),
        ("a, ?!", "a term is empty or has no letters or digits"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text(f"x, y\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_synonyms(str(path))
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert problem in str(caught.value)
    assert str(caught.value).endswith("Write a, b, c or a, b => c.")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"synonyms .*none.txt cannot be read: No such file"):
        read_synonyms(str(tmp_path / "none.txt"))
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a, b\nz\xfcrich, zuerich\n")
    with pytest.raises(UsageError, match=r"latin\.txt, line 2: it is not UTF-8"):
        read_synonyms(str(path))
    path.write_bytes("\ufeffa, b\r\n".encode())
    assert read_synonyms(str(path)).expand("a").text == "a b"
    assert NONE.expand("a").text == "a"


DOCS = [
    Doc("car", ["the car is red"]),
    Doc("auto", ["an automobile of steel"]),
    Doc("stone", ["a stone of the hill"]),
]


@pytest.mark.parametrize("sparse", ["bm25", "lexical"])
def test_the_sparse_leg_finds_synonyms_and_the_dense_leg_is_as_before(sparse: Any) -> None:
    target = collection(DOCS, sparse)
    with_rules = replace(target, synonyms=rules("car, automobile"))
    plain, asked = (Searcher(t).search("car", SearchOptions(explain=True)) for t in (target, with_rules))
    assert len(plain.legs["sparse"]) == 1
    assert len(asked.legs["sparse"]) == 2
    assert asked.legs["dense"] == plain.legs["dense"]
    assert (asked.searched, asked.query.text) == ("car automobile", "car")
    assert asked.notes[0] == 'Synonyms of "car", for the sparse leg: automobile.'
    [auto] = [i for i, hit in enumerate(asked.hits) if hit.doc_id == "auto"]
    assert len(asked.explanations[auto].matches) == 1
    many = list(Searcher(with_rules).run([asked.query, asked.query], SearchOptions()))
    assert [len(result.legs["sparse"]) for result in many] == [2, 2]


def test_an_excluded_word_has_no_synonyms() -> None:
    target = replace(collection(DOCS, "bm25"), synonyms=rules("car, automobile"))
    result = Searcher(target).search("red -car")
    assert result.searched == "red"
    assert {hit.doc_id for hit in result} == {"auto", "stone"}


def test_a_synonym_counts_as_the_word_for_trust() -> None:
    row = {"title": "", "breadcrumb": "", "text": "an automobile of steel", "lexical": None}
    expansion = rules("car, automobile, motor car").expand("red car")
    assert share(expansion.text, row, expansion) == 0.5
    assert share("red car", row) == 0.0
    assert share("red car", {"title": "", "breadcrumb": "", "text": "red car"}) == 1.0
