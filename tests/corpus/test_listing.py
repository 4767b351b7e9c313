from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from m3index.corpus.listing import MAX_TEXT, Listing, stem

names = st.lists(st.sampled_from(["a", "b", "c.d", "e.jsonl", ".f", "é", "x y"]), min_size=1, max_size=3).map(
    "/".join
)


def listing(gave: set[str], unread: set[str] = frozenset()) -> Listing:  # type: ignore[assignment]
    made = Listing(set(gave))
    for name in sorted(unread):
        made.add_unread(name, f"/c/{name}", "why")
    return made


@given(st.sets(names), st.sets(names))
def test_the_text_holds_everything(gave: set[str], unread: set[str]) -> None:
    made = listing(gave, unread)
    read = Listing.from_text(made.to_text())
    assert (read.gave, read.unread.keys()) == (made.gave, made.unread.keys())


def test_a_text_that_is_none_is_an_empty_listing() -> None:
    for text in ("", "x", "!!", "0" * 10):
        assert Listing.from_text(text) == Listing()


def test_the_text_is_bounded() -> None:
    import hashlib

    many = {f"part-{hashlib.sha256(str(i).encode()).hexdigest()}.parquet" for i in range(5_000)}
    text = listing(many, {f"{name}.bak" for name in many}).to_text()
    assert len(text) <= MAX_TEXT
    kept = Listing.from_text(text)
    assert kept.gave
    assert kept.gave <= many
    parts = listing({f"part-{i:05d}.parquet" for i in range(10_000)})
    assert Listing.from_text(parts.to_text()).gave == parts.gave


def test_the_stem_of_a_name() -> None:
    same = ("d/a.jsonl", "d/a.jsonl.bak", "d/.a.jsonl.swp", "d/a", "d/a.json.gz")
    assert {stem(name) for name in same} == {"d/a"}
    assert stem("d/e.f/") == "d/e.f/"
    assert stem(".sub/") == "sub/"
    assert stem("a.x") != stem("d/a.x")


def test_what_is_left_in_place_of_a_file() -> None:
    now = listing({"b.jsonl"}, {"sub/", "a.jsonl.bak", ".hidden/"})
    assert now.left("a.jsonl") == "/c/a.jsonl.bak (why)"
    assert now.left("sub/deep/x.jsonl") == "/c/sub/ (why)"
    assert now.left("hidden/x.txt") == "/c/.hidden/ (why)"
    assert not now.left("b.jsonl")
    assert not now.left("subway/x.jsonl")


def test_what_was_lost_since_the_last_time() -> None:
    before = listing({"a.jsonl", "b.jsonl", "gone.jsonl"}, {"readme.rst"})
    assert not listing({"a.jsonl", "b.jsonl"}, {"readme.rst"}).lost(before), "a file that is gone"
    assert not listing({"a.jsonl", "b.jsonl"}, {"new.pdf"}).lost(before)
    assert listing({"a.jsonl"}, {"b.jsonl"}).lost(before) == "/c/b.jsonl (why)"
    assert listing({"a.jsonl"}, {"readme.md", "b.json"}).without(before).unread.keys() == {"b"}
