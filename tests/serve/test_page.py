"""The page in a real browser (`make test-browser`): Chromium, by Playwright."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving import EVIL, Server, build, serving

from m3index.cli.show import by_chance
from m3index.search.fusion import METHODS, Ranking, combine
from m3index.search.options import SearchOptions
from m3index.serve.guard import Access
from m3index.serve.served import ServedIndex
from m3index.types import Document, Leg

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of this machine where there is one, else Playwright's own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda request: complaints.append(request.url) if server.url not in request.url else None
    )
    yield page
    context.close()
    allowed = ("status of 400", "status of 401", "status of 503", "data:")
    assert [c for c in complaints if not any(a in c for a in allowed)] == []


def settled(page: Page) -> None:
    expect(page.locator("#frame")).not_to_have_class(re.compile("busy"))
    expect(page.locator(".hit").first).to_be_visible()


def titles(page: Page) -> list[str]:
    settled(page)
    return page.locator(".hit h2 button").all_inner_texts()


def ids(page: Page) -> list[str]:
    settled(page)
    return page.locator(".hit .tags > :first-child").all_inner_texts()


def ask(page: Page, query: str) -> None:
    page.get_by_role("searchbox").fill(query)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("found")


def ranked(legs: dict[str, Any]) -> dict[str, Ranking]:
    fields = ("ids", "scores", "passages", "depth", "trust")
    return {
        name: Ranking(**{field: one[field] for field in fields}, leg=Leg(one["leg"]))
        for name, one in legs.items()
    }


def test_the_script_s_fusion_is_the_server_s(page: Page) -> None:
    """To the last bit, ties and all, over random rankings, weights and k."""
    generator = random.Random(7)
    page.goto("/")
    cases: list[dict[str, Any]] = []
    for _ in range(300):
        legs = {}
        for name in ("dense", "sparse")[: generator.choice((1, 2, 2, 2))]:
            found = generator.sample([f"{i:032x}" for i in range(40)], generator.randrange(0, 30))
            scores = sorted((generator.uniform(-1, 20) for _ in found), reverse=True)
            legs[name] = {
                "ids": found,
                "scores": scores,
                "passages": [f"{i}-{name}" for i in found],
                "leg": "dense" if name == "dense" else "bm25",
                "depth": 20,
                "trust": generator.choice((0.0, 0.4, 1.0, 2.5)) if name == "dense" else generator.random(),
            }
        weights = {name: generator.choice((0.0, 0.05, 0.3, 0.5, 1.0, 1.0)) for name in legs}
        if not any(weights.values()):
            continue
        for name, one in ranked(legs).items():
            if (chance := one.chance) is not None:
                legs[name]["votes"] = [one.trust * chance.vote(score) for score in one.scores]
            if name == "dense":
                legs[name]["unseen"] = one.unseen
        fusion, k = generator.choice(METHODS[:2]), generator.choice((0, 1, 60, 200))
        cases.append({"legs": legs, "weights": weights, "fusion": fusion, "k": k})
    script = """(cases) => cases.map(({legs, weights, fusion, k}) =>
        fuse(legs, weights, fusion, k).map((item) => [item.id, item.score, passageOf(legs, item)]))"""
    for case, got in zip(cases, page.evaluate(script, cases), strict=True):
        if case["k"] == 0 and not case["legs"]:
            continue
        rankings, expected = ranked(case["legs"]), []
        for fused in combine(rankings, case["weights"], method=case["fusion"], k=float(case["k"])):
            leg = max(fused.contributions, key=lambda name: fused.contributions[name])
            passage = rankings[leg].passages[rankings[leg].ids.index(fused.id)]
            expected.append([fused.id, fused.score, passage])
        assert got == expected


def test_sliders_order_again_as_the_server_would_without_asking_it(page: Page, server: Server) -> None:
    page.goto("/")
    ask(page, "tides and moons 7 of the sea")
    searches: list[str] = []
    page.on("request", lambda request: searches.append(request.url))
    settings = itertools.product((0.2, 0.75, 1), (0, 0.35, 1), (0, 60, 150), (5, 12))
    page.locator("#fusing").select_option("rrf")
    for dense, sparse, k, count in random.Random(1).sample(list(settings), 12):
        for name, value in (("#weight-0", dense), ("#weight-1", sparse), ("#rrfk", k), ("#count", count)):
            page.locator(name).fill(str(value))
        weights = {"dense": dense, "sparse": sparse}
        options = SearchOptions(k=count, depth=100, weights=weights, rrf_k=float(k))
        expected = server.warm.index.search("tides and moons 7 of the sea", options)
        shown = [hit.doc_id for hit in expected.hits if hit.title]
        assert [i for i in ids(page) if i in shown] == shown
    page.locator("#fusing").select_option("evidence")
    for dense, sparse in ((1, 1), (0.2, 0.75), (0.75, 0.05), (0, 1), (1, 0)):
        for name, value in (("#weight-0", dense), ("#weight-1", sparse), ("#count", 12)):
            page.locator(name).fill(str(value))
        weights = {"dense": dense, "sparse": sparse}
        options = SearchOptions(k=12, depth=100, weights=weights, fusion="evidence")
        expected = server.warm.index.search("tides and moons 7 of the sea", options)
        shown = [hit.doc_id for hit in expected.hits if hit.title]
        assert [i for i in ids(page) if i in shown] == shown
    assert searches == []
    page.locator("#weight-0").fill("0")
    page.locator("#weight-1").fill("0")
    expect(page.get_by_role("alert")).to_contain_text("All weights are 0")


def test_malice_in_a_document_stays_text(page: Page) -> None:
    page.goto("/")
    ask(page, "malice")
    assert titles(page)[0] == EVIL
    page.locator(".hit h2 button").first.click()
    page.get_by_text("Whole document").click()
    expect(page.locator(".document p").first).to_contain_text(EVIL)
    page.locator("#condition").fill(f"lang={json.dumps(EVIL)}")
    page.locator("#condition").press("Enter")
    expect(page.locator(".chip")).to_contain_text("<img src=x")
    assert titles(page) == [EVIL]
    page.goto(f"/?q={EVIL}&where=n%3E0&weights={EVIL}%3D1&k=9e9&rrf_k=x")
    expect(page.locator("#status")).to_contain_text("found")
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img").count() == 0


def test_highlights_and_bars(page: Page) -> None:
    page.goto("/")
    ask(page, "tides")
    assert {text.lower() for text in page.locator("mark").all_inner_texts()} == {"tides"}
    first = page.locator(".hit").first
    expect(first.locator(".leg")).to_have_count(2)
    assert re.fullmatch(r"dense\s*#\d+", first.locator(".leg").first.inner_text())
    assert first.locator(".bar").first.bounding_box()["width"] > 20  # type: ignore[index]


def test_details_show_ranks_crossings_and_tokens(page: Page, server: Server) -> None:
    page.goto("/?fusion=rrf")
    ask(page, "tides of the sea")
    page.locator(".hit h2 button").nth(1).click()
    more = page.locator(".hit").nth(1).locator(".more")
    expect(more.locator("tbody tr")).to_have_count(3)
    expect(more.locator(".token")).not_to_have_count(0)
    expect(more.locator("svg.curve")).to_be_visible()
    told = more.locator(".why ul:not(.votes) li").all_inner_texts()
    options = SearchOptions(k=50, depth=100, explain=True, fusion="rrf")
    result = server.warm.index.search("tides of the sea", options)
    shares = {f"{crossing.share:.2f}" for crossing in result.explanations[1].crossings}
    assert told
    assert {re.findall(r"\d\.\d\d", text)[-1] for text in told} <= shares


def test_details_of_fusion_by_evidence_say_what_chance_would_find(page: Page, server: Server) -> None:
    page.goto("/")
    ask(page, "tides and moons 7 of the sea")
    options = SearchOptions(k=50, depth=100, explain=True, fusion="evidence")
    result = server.warm.index.search("tides and moons 7 of the sea", options)
    page.locator(".hit h2 button").nth(1).click()
    why = page.locator(".hit").nth(1).locator(".why")
    assert why.locator(".votes li").all_inner_texts() == [
        f"{name}: {by_chance(leg.by_chance)}"
        for name, leg in result[1].legs.items()
        if leg.by_chance is not None
    ]
    told = why.locator("ul:not(.votes) li").all_inner_texts()
    shares = {f"{crossing.share:.2f}" for crossing in result.explanations[1].crossings}
    assert {re.findall(r"\d\.\d\d", text)[-1] for text in told} <= shares


def test_the_keyboard_is_enough(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("sea")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("found")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator(".hit h2 button").nth(1)
    expect(second).to_be_focused()
    page.keyboard.press("Enter")
    expect(second).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(second).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_filters_links_and_the_way_back(page: Page) -> None:
    page.goto("/")
    ask(page, "sea")
    page.locator("#condition").fill("lang=de")
    page.locator("#condition").press("Enter")
    expect(page.locator(".chip")).to_contain_text("lang=de")
    assert all(i.startswith("de-") for i in ids(page))
    page.reload()
    assert all(i.startswith("de-") for i in ids(page))
    page.go_back()
    expect(page.locator(".chip")).to_have_count(0)
    page.locator("#condition").fill("colour=red")
    page.locator("#condition").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("no field 'colour'")
    page.get_by_role("button", name="Remove colour=red").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    page.locator(".hit h2 button").first.click()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator(".chip")).to_contain_text("similar to ")
    expect(page.locator("#status")).to_contain_text("found")


def test_reranked_hits_are_in_the_reranker_s_order(page: Page, server: Server) -> None:
    page.goto("/")
    page.locator("#rerank").select_option("colbert")
    ask(page, "tides and moons 3 of the sea")
    options = SearchOptions(k=10, depth=100, rerank="colbert")
    expected = server.warm.index.search("tides and moons 3 of the sea", options)
    assert ids(page) == [hit.doc_id for hit in expected.hits]
    expect(page.locator("#weight-0")).to_be_disabled()


def test_right_to_left_dark_and_narrow(browser: Browser, server: Server) -> None:
    context = browser.new_context(
        base_url=server.url, color_scheme="dark", viewport={"width": 340, "height": 700}
    )
    page = context.new_page()
    page.goto("/?q=البحر")
    assert titles(page)[0] == "المد"
    direction = "(e) => getComputedStyle(e).direction"
    assert page.locator(".hit .snippet").first.evaluate(direction) == "rtl"
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    assert page.locator("#panel").get_attribute("open") is None
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "light"
    context.close()


def test_the_token_is_asked_for_and_kept_for_the_session(browser: Browser) -> None:
    with serving(build(), Access("0123456789abcdef", None)) as server:
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        page.goto("/?q=tides")
        page.locator("#token").fill("a wrong one")
        page.keyboard.press("Enter")
        expect(page.locator("#token")).to_have_value("")
        page.locator("#token").fill("0123456789abcdef")
        page.keyboard.press("Enter")
        assert titles(page)
        page.reload()
        assert titles(page)
        assert "0123456789abcdef" not in page.url + json.dumps(page.evaluate("({...localStorage})"))
        context.close()


def test_it_waits_for_the_encoder(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServedIndex, "start", lambda *_: None)
    with serving(build(), loaded=False) as server:
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        page.goto("/?q=tides")
        expect(page.locator("#status")).to_contain_text("still loading")
        server.warm.load()
        assert titles(page)
        context.close()


AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_violation(browser: Browser, server: Server, scheme: Any, width: int) -> None:
    """The first screen, hits with details, no hits, an error, and a reranked or sorted order."""
    context = browser.new_context(
        base_url=server.url, color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    page = context.new_page()
    for address in ("/", "/?q=tides and moons", "/?q=sea&where=n%3E900", "/?q=sea&where=x%3D1",
                    "/?q=sea&rerank=colbert&page=2", "/?q=sea&sort=n:desc"):  # fmt: skip
        page.goto(address)
        expect(page.locator("#frame")).not_to_have_class(re.compile("busy"))
        expect(page.locator("#status, #alert").filter(has_text=re.compile(r"\w")).first).to_be_visible()
        if address.endswith("moons"):
            page.locator(".hit h2 button").first.click()
            page.get_by_text("Whole document").click()
            expect(page.locator(".document p").first).to_be_visible()
            page.locator("#weight-0").evaluate("e => { e.value = 0.1; e.dispatchEvent(new Event('input')) }")
        results = Axe().run(page, options=AXE)
        assert results.violations_count == 0, f"{address}: {results.generate_report()}"
    context.close()


def test_pages_are_parts_of_one_order(page: Page, server: Server) -> None:
    page.goto("/?k=5")
    ask(page, "tides and moons 7 of the sea")
    whole = server.warm.index.search("tides and moons 7 of the sea", SearchOptions(k=15, depth=100))
    seen = ids(page)
    expect(page.locator("#page")).to_have_text(re.compile("^Page 1 of "))
    for number in (2, 3):
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#page")).to_have_text(re.compile(f"^Page {number} of "))
        seen += ids(page)
    assert [i for i in seen if not i.startswith("a quote")] == [hit.doc_id for hit in whole.hits if hit.title]
    expect(page.locator("#status")).to_have_text(re.compile(r"^11–15 of \d+ found"))
    assert page.locator(".hit .rank").first.inner_text().split()[0] == "11"
    page.go_back()
    expect(page.locator("#page")).to_have_text(re.compile("^Page 2 of "))
    page.reload()
    expect(page.locator("#page")).to_have_text(re.compile("^Page 2 of "))
    page.locator("#count").fill("50")
    expect(page.locator("#pages")).to_be_hidden()


def test_the_first_screen_says_how_much_there_is_and_what_to_ask(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#status")).to_have_text(
        re.compile(r"^40 documents in \d+ passages, updated (just now|\d+ minutes? ago)$")
    )
    expect(page.locator("#condition")).to_have_attribute("placeholder", re.compile("^add a filter: lang="))
    first = page.locator("#samples button").first
    asked = first.inner_text()
    first.click()
    expect(page.get_by_role("searchbox")).to_have_value(asked)
    assert asked in titles(page)
    expect(page.locator("#samples")).to_be_hidden()


def test_the_theme_button_says_its_state(page: Page) -> None:
    page.goto("/")
    for state in ("auto", "light", "dark", "auto"):
        button = page.get_by_role("button", name=f"Theme: {state}")
        expect(button).to_be_visible()
        button.click()


def test_addresses_in_metadata_are_links(browser: Browser) -> None:
    documents = [
        Document("a", "tides of the sea", "A", {"url": "https://www.example.org/tides/?a=1&b=<i>"}),
        Document("b", "tides of the moon", "B", {"url": "javascript:alert(1)"}),
    ]
    with serving(build(documents=documents)) as server:
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        page.goto("/?q=tides")
        links = page.locator(".hit a")
        expect(links).to_have_count(1)
        expect(links).to_have_text("example.org/tides/?a=1&b=<i>")
        assert links.get_attribute("href") == "https://www.example.org/tides/?a=1&b=<i>"
        assert links.get_attribute("rel") == "noopener noreferrer"
        context.close()


def test_facets_count_what_is_found_and_narrow_it(page: Page, server: Server) -> None:
    page.goto("/")
    ask(page, "tides -Ebbe")
    counted = server.warm.index.search("tides -Ebbe", SearchOptions(depth=100, facets=["lang"])).facets[
        "lang"
    ]
    page.get_by_role("button", name="more of n").click()
    languages = page.locator(".facet").filter(has=page.get_by_role("heading", name="lang", exact=True))
    shown = [text.split("\n") for text in languages.get_by_role("button").all_inner_texts()]
    assert shown == [[str(found.value), str(found.count)] for found in counted.values]
    expect(page.locator(".facet")).to_have_count(2)
    german = languages.get_by_role("button", name="fr")
    german.click()
    expect(page.locator(".chip")).to_contain_text('lang="fr"')
    assert all(i.startswith("fr-") for i in ids(page))
    expect(german).to_have_attribute("aria-pressed", "true")
    german.click()
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator(".note").first).to_contain_text("Left out for")


def test_a_sorted_order_is_the_server_s(page: Page, server: Server) -> None:
    page.goto("/")
    ask(page, "tides and moons of the sea")
    page.locator("#sort").select_option("n:desc")
    expect(page.locator("#status")).to_contain_text("found")
    expected = server.warm.index.search("tides and moons of the sea", SearchOptions(k=10, sort="n:desc"))
    shown = [hit.doc_id for hit in expected.hits if hit.title]
    assert [i for i in ids(page) if i in shown] == shown
    expect(page.locator("#weight-0")).to_be_disabled()
    page.reload()
    expect(page.locator("#sort")).to_have_value("n:desc")
    assert ids(page)[0] == expected.hits[0].doc_id
