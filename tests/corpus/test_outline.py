"""Headings, blocks and anchors of Markdown, and what only looks like them."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3index.corpus.outline import Heading, Outline, anchors, outline, plain, slugs


def code(found: Outline) -> list[tuple[int, int]]:
    return list(zip(found.code_starts, found.code_ends, strict=True))


def headings(text: str, form: str = "markdown") -> list[tuple[int, str]]:
    return [(heading.level, heading.text) for heading in outline(text, form).headings]


def test_headings_have_levels_and_places() -> None:
    text = "intro\n\n# One\ntext\n\n### Three ###\n\nSetext\n======\n\nTwo\n---\n####### seven\n#no\n#\n"
    found = outline(text, "markdown").headings
    assert [(h.level, h.text) for h in found] == [
        (1, "One"),
        (3, "Three"),
        (1, "Setext"),
        (2, "Two"),
        (1, ""),
    ]
    assert [text[h.start :].partition("\n")[0] for h in found] == [
        "# One",
        "### Three ###",
        "Setext",
        "Two",
        "#",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```sh\n# comment\n```\n",
        "~~~\n# comment\n~~~~\n",
        "- a list\n\n      ```\n# still code\n      ```\n",
        "    # indented code\n",
        "> # in a quote\n",
        "| # | in a table |\n|---|---|\n",
        "- item\n---\n",
        "#hashtag and #another\n",
        "one\ntwo lines\n---\n",
        "```\n# never closed\n\ntext",
        "<!--\n# comment\n\n## comment\n\n```\n-->\ntext\n",
        "text\n<!-- # comment\r\n# comment\r\n-->\r\n",
    ],
)
def test_what_is_no_heading(text: str) -> None:
    assert headings(text) == []


@pytest.mark.parametrize("comment", ["<!-- # no -->\n", "<!-->\n", "<!--\n# no\n\n```\n# no\n-->\n"])
def test_a_comment_ends(comment: str) -> None:
    assert headings(f"{comment}# Yes\n\ntext\n\n{comment}\nAlso\n----\n") == [(1, "Yes"), (2, "Also")]


SCRIPT = (
    "#!/bin/sh\n# Copies files.\n# Usage: copy FROM TO\n\nset -e\n# the source\nfrom=$1\n\n# Done\n\nexit 0\n"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SCRIPT, 0),
        ("import os\n\n# Constants\nA = 1\n# more\nB = 2\n", 0),
        ("#1 on the list\n\n#win\n", 0),
        ("# Title\n\nText.\n\n## Part\n\nMore.\n", 2),
        ("# Title\n\nText.\n\n## Part\n\nMore.\n\n```\n# comment\n```\n## Tight\nText.\n", 3),
        ("Title\n=====\n\nPart\n----\n", 0),
    ],
)
@pytest.mark.parametrize("form", ["", "text"])
def test_in_a_row_or_a_text_headings_stand_alone(form: str, text: str, found: int) -> None:
    """Comments of a script and hashtags are no sections."""
    assert len(headings(text, form)) == found


def test_blocks_do_not_begin_after_a_heading() -> None:
    text = (
        "# One\n\nfirst\nsecond\n\nthird\n```\ncode\n\ncode\n```\nfourth\n\n| a |\n|---|\n| b |\n\n- x\n- y\n"
    )
    found = outline(text, "markdown")
    assert [text[i:].partition("\n")[0] for i in found.blocks] == ["third", "```", "fourth", "| a |", "- x"]
    assert [text[i:].partition("\n")[0] for i in found.lines] == ["|---|", "| b |", "- y"]
    assert [text[a:b] for a, b in code(found)] == ["```\ncode\n\ncode\n```\n"]


@pytest.mark.parametrize(
    ("heading", "read"),
    [
        ("Using `cargo` *now*", "Using cargo now"),
        ("[A link](https://x.y) and ![image](z.png)", "A link and image"),
        ("snake_case_name and __bold__", "snake_case_name and bold"),
        ('<a id="x"></a> Old', "Old"),
        ("`Vec<T>` and \\*stars\\*", "Vec<T> and *stars*"),
        ("  two   spaces ", "two spaces"),
    ],
)
def test_headings_are_read_without_markup(heading: str, read: str) -> None:
    assert plain(heading) == read


def test_slugs_follow_github() -> None:
    """The examples of github-slugger and of GitHub's documentation."""
    expected = [
        ("foo", "foo"), ("foo", "foo-1"), ("foo 1", "foo-1-1"), ("foo", "foo-2"),
        ("Hello, World!", "hello-world"), ("Vec<T> & Box", "vect--box"), ("§ 1 Zweck", "-1-zweck"),
        ("I ♥ unicode", "i--unicode"), ("हिन्दी", "हिन्दी"), ("a_b-c", "a_b-c"),
    ]  # fmt: skip
    assert list(slugs([Heading(0, 1, name) for name, _ in expected])) == [slug for _, slug in expected]


def test_anchors_by_format() -> None:
    text = "# One\n\na\n\f\nb\n\n## Two\n\nc\n"
    starts = [0, text.index("a"), text.index("b"), text.index("## Two"), text.index("c")]
    of = {
        form: anchors(text, form, outline(text, form), starts)
        for form in ("markdown", "pdf", "text", "docx", "")
    }
    assert of["markdown"] == of[""] == ["", "one", "one", "two", "two"]
    assert of["pdf"] == ["", "page=1", "page=2", "page=2", "page=2"]
    assert of["text"] == ["", "L3", "L5", "L7", "L9"]
    assert of["docx"] == [""] * 5


LINES = st.lists(
    st.sampled_from(
        ["# A", "## B", "text", "", "```", "~~~", "| a |", "- x", "    c", "---", "===", "> q", "\f"]
    )
    | st.text(max_size=12),
    max_size=40,
)


@settings(deadline=None)
@given(LINES, st.sampled_from(["", "markdown", "text", "pdf"]))
@example(["```", "", "# A"], "markdown")
def test_places_ascend_and_are_in_the_text(lines: list[str], form: str) -> None:
    text = "\n".join(lines)
    found = outline(text, form)
    for places in ([h.start for h in found.headings], list(found.blocks), list(found.lines)):
        assert places == sorted(set(places))
        assert all(0 <= place < max(len(text), 1) for place in places)
        assert all(place == 0 or text[place - 1] == "\n" for place in places)
    ends = [end for pair in code(found) for end in pair]
    assert ends == sorted(ends)
    assert all(end <= len(text) for end in ends)
    inside = [*(h.start for h in found.headings), *found.blocks, *found.lines]
    assert not any(start < place < end for start, end in code(found) for place in inside)


@pytest.mark.parametrize(
    "line", ["# a\n", "```\n", "> " * 50 + "\n", "[" * 80 + "\n", "# " + "*a " * 400 + "\n", "\n"]
)
def test_time_grows_with_the_text_alone(line: str) -> None:
    text = line * (400_000 // len(line))
    started = time.process_time()
    found = outline(text, "markdown")
    list(slugs(found.headings))
    assert time.process_time() - started < 5
