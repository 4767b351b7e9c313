"""Tells documents that have left the corpus from documents whose file a run did not read.

The collection remembers for each source which files gave documents (`m3index.files`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from m3index.corpus.listing import Listing
from m3index.index.plan import Corpus, Planner
from m3index.store.base import Store
from m3index.types import key_of_passage

PROPERTY = "files"


def left_unread(store: Store, name: str, planner: Planner, corpus: Corpus) -> str:
    """A file or folder that was not read, although documents of this source came from it or from a file of
    its name; empty if there is none."""
    before = _before(store.properties(name), planner)
    new = corpus.listing.without(before)
    if not new.unread:
        return ""
    if found := new.lost(before):
        return found
    for row in store.scan(name, planner.rows, ["ordinal", "doc_id"]):  # the id of a text file is its name
        if key_of_passage(row["passage_id"]) not in planner and (found := new.left(row["doc_id"])):
            return found
    return ""


def remembered(
    store: Store, name: str, planner: Planner, listing: Listing, *, is_complete: bool
) -> dict[str, str]:
    """The property with this listing, for a successful run; nothing to write if it has not changed.

    is_complete: whether the corpus was all of the source. Otherwise the listing adds to an earlier one.
    """
    properties = store.properties(name)
    known, before = _known(properties), _before(properties, planner)
    if not is_complete and before.gave | before.unread.keys():
        listing = Listing(before.gave | listing.gave, before.unread)
    text = listing.to_text() if listing.gave or listing.unread else ""
    if known.get(planner.scope, "") == text:
        return {}
    return {PROPERTY: json.dumps(known | {planner.scope: text})}


def _before(properties: Mapping[str, str], planner: Planner) -> Listing:
    return Listing.from_text(_known(properties).get(planner.scope, ""))


def _known(properties: Mapping[str, str]) -> dict[str, str]:
    known: dict[str, str] = json.loads(properties.get(PROPERTY, "{}"))
    return known
