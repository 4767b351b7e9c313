"""Passages along sections and blocks: what they keep whole, and what an edit does to them."""

from __future__ import annotations

import random
import time

import pytest
from corpus.test_windows import TEXT, TOKENIZERS, FakeTokenizer, check_laws
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3index.corpus.cut import windows
from m3index.corpus.outline import outline
from m3index.corpus.windows import PassageSize, Tokenizer
from m3index.types import Document, Passage, Rejected


def cut(
    text: str, tokens: int = 40, overlap: int = 0, *, title: str = "", form: str = "markdown"
) -> list[Passage]:
    document = Document("d", text, title, format=form)
    [(_, passages)] = windows([document], FakeTokenizer(64), PassageSize(tokens, overlap, "structure"))
    return passages


def words(count: int, name: str = "w") -> str:
    return " ".join(f"{name}{i}" for i in range(count))


def shown(passages: list[Passage]) -> list[tuple[str, str]]:
    """The breadcrumb and the first line of each passage."""
    return [(p.breadcrumb, p.text.partition("\n")[0]) for p in passages]


MARKDOWN = st.lists(
    st.sampled_from(
        ["# A", "## B b", "### C", "", "", "one two three.", "```", "| a | b |", "- item", "    code"]
    )
    | TEXT.map(lambda text: text[:60]),
    min_size=1,
    max_size=60,
).map("\n".join)


@settings(deadline=None, max_examples=150)
@given(
    MARKDOWN.filter(lambda text: text and not text.isspace()),
    TEXT.map(lambda t: t[:15]) | st.just(""),
    TOKENIZERS,
    st.integers(10, 40),
    st.data(),
    st.sampled_from(["", "markdown", "text", "pdf"]),
)
@example("# A\n" * 30, "", FakeTokenizer(40), 12, None, "markdown")
@example("0" * 100, "", FakeTokenizer(40), 12, None, "")
def test_laws(
    text: str, title: str, tokenizer: Tokenizer, size: int, data: st.DataObject | None, form: str
) -> None:
    """Those of windows: nothing is lost, nothing is too long, with the breadcrumb counted in."""
    overlap = data.draw(st.integers(0, (size - tokenizer.reserve) // 2)) if data else 2
    refused: list[Rejected] = []
    document, how = Document("d", text, title, format=form), PassageSize(size, overlap, "structure")
    for _, passages in windows([document], tokenizer, how, refused.append):
        check_laws(text, title, passages, tokenizer, size)
    assert not refused or "title" in refused[0].reason


def test_a_section_that_fits_is_one_passage() -> None:
    text = f"# Guide\n\n{words(25)}\n\n## Install\n\n{words(22)}\n\n### Linux\n\n{words(22)}\n\n"
    text += f"## Use\n\n{words(25)}\n"
    assert shown(cut(text)) == [
        ("Guide", "# Guide"),
        ("Guide > Install", "## Install"),
        ("Guide > Install > Linux", "### Linux"),
        ("Guide > Use", "## Use"),
    ]
    with_subsections = f"# Guide\n\n{words(28)}\n\n## Install\n\n{words(10)}\n\n### Linux\n\n{words(10)}\n"
    assert shown(cut(with_subsections)) == [("Guide", "# Guide"), ("Guide > Install", "## Install")]


def test_the_title_is_not_repeated() -> None:
    text = f"# Guide\n\n{words(35)}\n\n## Install\n\n{words(35)}\n"
    assert [p.breadcrumb for p in cut(text, 45, title="guide")] == ["", "Install"]


def test_the_breadcrumb_is_encoded_after_the_title() -> None:
    text = f"# Guide\n\n{words(35)}\n\n## Install\n\n{words(30)}\n"
    last = cut(text, 45, title="Book")[-1]
    [expected] = FakeTokenizer(64).documents([f"Book\nGuide > Install\n{last.text}"])
    assert last.token_ids.tolist() == expected.ids.tolist()


def test_small_neighbours_of_one_parent_share_a_passage() -> None:
    small = "".join(f"## S{i}\n\n{words(5)}\n\n" for i in range(4))
    text = f"# A\n\n{words(30)}\n\n{small}# B\n\n{words(5)}\n\n# C\n\n{words(30)}\n"
    assert shown(cut(text)) == [("A", "# A"), ("A", "## S0"), ("A", "## S2"), ("B", "# B"), ("C", "# C")]


def test_a_heading_without_text_goes_with_what_follows() -> None:
    text = f"# Book\n\n## Part\n\n### One\n\n{words(30)}\n\n### Two\n\n{words(30)}\n"
    assert shown(cut(text, 50)) == [("Book > Part > One", "# Book"), ("Book > Part > Two", "### Two")]


def test_code_and_rows_of_tables_stay_whole() -> None:
    code = "```\n" + "\n".join(f"x{i} = {i}." for i in range(8)) + "\n```\n"
    table = "| a | b |\n|---|---|\n" + "".join(f"| {words(6, f'r{i}.')} | x |\n" for i in range(9))
    for before in range(5, 60):
        text = f"# T\n\n{words(before)}\n\n{code}\n{words(20)}\n\n{table}\n{words(before)}\n"
        passages = cut(text, 48, 5)
        assert any(code in p.text for p in passages)
        starts = {text.index(row) for row in table.splitlines()}
        for passage in passages:
            for row in table.splitlines():
                at = text.index(row)
                assert not at < passage.start < at + len(row)
                assert not at < passage.end < at + len(row)
        assert len(starts) == 11


def test_code_that_does_not_fit_is_cut_between_lines() -> None:
    code = "```\n" + "\n".join(f"let x{i} = call(a, b). Then c;" for i in range(40)) + "\n```\n"
    passages = cut(f"intro\n\n{code}")
    assert len(passages) > 5
    assert all(p.text.startswith(("intro", "```", "let ")) for p in passages)


def test_a_breadcrumb_leaves_room_for_the_text() -> None:
    """It gives way to the heading of the section alone, and that to nothing."""
    long = words(15, "h")
    text = f"# {long}\n\n{words(30)}\n\n## Sub\n\n{words(50)}\n"
    assert {p.breadcrumb for p in cut(text)} == {"", "Sub"}


def test_a_script_in_a_row_is_no_document_with_sections() -> None:
    script = "".join(f"# step {i}\ncommand {words(12)}\n\n" for i in range(12))
    assert {(p.breadcrumb, p.anchor) for p in cut(script, form="")} == {("", "")}
    assert {p.breadcrumb for p in cut(script, form="markdown")} != {""}


def sentences(count: int, seed: int) -> list[str]:
    """Paragraphs of a text that has no headings."""
    chosen = random.Random(seed)
    return [
        " ".join(f"w{chosen.randrange(10_000)}" for _ in range(chosen.randrange(4, 12))) + "."
        for _ in range(count)
    ]


@pytest.mark.parametrize("joint", ["\n\n", " "])
@pytest.mark.parametrize("form", ["", "text", "markdown"])
def test_an_insertion_moves_few_cuts(joint: str, form: str) -> None:
    """Passages far behind an edit are the same as before it."""
    kept = total = 0
    for seed in range(6):
        parts = sentences(400, seed)
        before = {p.text for p in cut(joint.join(parts), 60, 8, form=form)}
        parts.insert(20, "A sentence that is new.")
        after = [p.text for p in cut(joint.join(parts), 60, 8, form=form)]
        total += len(after)
        kept += sum(text in before for text in after)
    assert kept > 0.85 * total


def test_rows_are_structured_where_they_look_it() -> None:
    text = f"# Guide\n\n{words(35)}\n\n## Install\n\n{words(35)}\n"
    assert outline(text, "").headings
    assert [(p.breadcrumb, p.anchor) for p in cut(text, 48, form="")] == [
        ("Guide", ""),
        ("Guide > Install", "install"),
    ]


@pytest.mark.parametrize("line", ["x", "| x ", "word. ", "# a\n", "```\n", "\n a", "- x\n"])
def test_time_grows_with_the_text_alone(line: str) -> None:
    """Texts of one line, or of nothing but headings, take no longer than others."""

    def seconds(length: int) -> float:
        started = time.process_time()
        cut((line * length)[:length] + "end", 60, 8)
        return time.process_time() - started

    seconds(2_000)
    short, long = (min(seconds(length) for _ in range(2)) for length in (20_000, 80_000))
    assert long < 10 * short + 0.5
