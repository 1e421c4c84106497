"""The page in a real browser: Debian's Chromium, driven by Playwright.

Screenshots lie in build/page, to be looked at.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taidpt.runtime.sites.config import ZoneConfig
from tests.runtime.serve.server import Server, running
from tests.runtime.serve.test_api import picture_file
from tests.runtime.sinks.senders import wait_for
from tests.runtime.tiny import TinySpec
from tests.support import REPOSITORY, require

OTHER = TinySpec(names=("forklift",), seed=9, bank_as="input", thresholds=(-9.0,))
PICTURES = REPOSITORY / "build" / "page"
WAIT_MS = 30_000

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def house(
    swappable: Path, video_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    data, source = tmp_path_factory.mktemp("page"), str(video_path)
    zone = ZoneConfig("gate", "cam1", ((0.1, 0.2), (0.5, 0.2), (0.5, 0.9), (0.1, 0.9)))
    options = {"zones": (zone,), "max_fps": 5.0, "min_on": 0.0}
    with running(swappable, data, source, source, **options) as server:
        server.group.edits.tower.warm = lambda: None  # tested in tests/export/classes
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of this file."""
    program = shutil.which("chromium")
    found = program is not None and importlib.util.find_spec("playwright") is not None
    require("chromium", found, "apt install chromium, and pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, house: Server) -> Iterator[Open]:
    """Opens pages; at the end none may have logged an error."""
    complaints: list[str] = []
    with contextlib.ExitStack() as stack:

        def open_one(width: int = 1280, height: int = 900, dark: bool = False) -> Any:
            scheme = "dark" if dark else "light"
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            stack.callback(page.close)
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console",
                lambda told: is_complaint(told) and complaints.append(told.text),
            )
            page.goto(house.url)
            page.locator("#tags li").first.wait_for()
            return page

        yield open_one
    while house.ask("/v1/bank").json["edits"]:
        house.ask("/v1/bank/undo", "POST")
    assert complaints == []


def is_complaint(told: Any) -> bool:
    """Errors of the console, but for refusals, which the browser logs and the page handles.

    One is an edit that cannot be; another the scores of a tag that another page has removed.
    """
    is_refusal = "status of 409" in told.text
    is_refusal |= "status of 404" in told.text and "/v1/tags/scores" in told.location["url"]
    return told.type == "error" and not is_refusal


def until(page: Any, expression: str) -> None:
    """Wait until JavaScript is true; `wait_for_function` would break the page's own policy."""
    for _ in range(WAIT_MS // 100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)


def photograph(page: Any, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", timeout=120_000)


def test_tags_come_and_go_and_the_timeline_shows_them(open_page: Open, house: Server) -> None:
    page = open_page()
    assert page.locator(".camera").count() == 2
    page.locator("#summary", has_text="2 of 2 cameras run").wait_for()
    until(page, "document.querySelector('.picture').naturalWidth === 128")
    first = page.locator(".bars").first
    first.locator("li.on").first.wait_for()
    until(page, "document.querySelectorAll('#events li').length > 3")
    until(page, "document.querySelectorAll('#timeline rect').length > 3")
    name = first.locator("li.on .name").first.inner_text()
    on = "[...document.querySelectorAll('.bars li.on .name')].map(name => name.textContent)"
    until(page, f"!{on}.includes({name!r})")  # the colour changes each second, and the tags with it
    page.select_option("#which", "cam2")
    page.select_option("#span", "600")
    until(page, "document.querySelectorAll('#events li').length > 0")
    where = page.locator("#events li .soft").first.inner_text()
    assert where.strip().startswith("cam2")
    photograph(page, "wide")


def test_zones_lie_on_the_picture_and_can_be_hidden(open_page: Open) -> None:
    page = open_page()
    yard = page.get_by_label("cam1", exact=True)
    yard.locator(".zones g.on text", has_text="gate: ").wait_for()  # filled while a tag is on in it
    picture, zone = (
        yard.locator(name).evaluate("one => JSON.stringify(one.getBoundingClientRect())")
        for name in (".picture", ".zones polygon")
    )
    frame, shape = json.loads(picture), json.loads(zone)
    width = frame["height"] * 4 / 3  # of the picture inside its 16:9 frame
    left = frame["left"] + (frame["width"] - width) / 2
    assert shape["left"] == pytest.approx(left + 0.1 * width, abs=3)
    assert shape["width"] == pytest.approx(0.4 * width, abs=6)
    assert page.get_by_label("cam2", exact=True).locator(".zones").is_hidden()
    page.get_by_role("checkbox", name="Zones").uncheck()
    yard.locator(".zones").wait_for(state="hidden")


def test_a_click_shows_where_a_tag_is_seen(open_page: Open) -> None:
    page = open_page()
    button = page.locator(".bars button").first
    button.wait_for()
    page.keyboard.press("Tab")
    button.press("Enter")  # in one step: rows change places, and may leave
    page.locator(".heat").first.wait_for(state="visible")
    until(page, "document.querySelector('.heat').naturalWidth === 128")
    assert page.locator(".bars button[aria-pressed=true]").count() == 1
    page.locator(".bars button[aria-pressed=true]").first.press("Enter")
    page.locator(".heat").first.wait_for(state="hidden")


def test_a_name_that_is_typed_outlives_a_change_in_another_page(
    open_page: Open, house: Server
) -> None:
    page, other = open_page(), open_page()
    page.get_by_label("Rename café").click()
    field = page.get_by_label("New name of café")
    field.fill("coffee")
    slider = other.get_by_label("Threshold of dog", exact=True)
    slider.focus()
    slider.press("End")
    page.locator("#undo", has_text="Undo: threshold of dog").wait_for()
    assert field.input_value() == "coffee"
    field.press("Escape")
    other.locator("#undo:enabled").click()
    assert wait_for(lambda: not house.ask("/v1/bank").json["edits"])


def test_thresholds_names_and_undo_in_two_pages(open_page: Open, house: Server) -> None:
    page, other = open_page(), open_page()
    slider = page.get_by_label("Threshold of dog", exact=True)
    slider.scroll_into_view_if_needed()
    share = page.locator("#tags li", has_text="dog").first.locator(".share")
    until(page, "/ % of /.test(document.querySelector('#tags .share').textContent)")
    slider.focus()
    slider.press("Home")  # the lowest score of all: always on
    page.locator("#undo", has_text="Undo: threshold of dog").wait_for()
    assert "on 100 % of" in share.inner_text()
    other.locator("#undo", has_text="Undo: threshold of dog").wait_for()
    page.get_by_label("Rename café").click()
    field = page.get_by_label("New name of café")
    field.fill("<b>café</b>")
    field.press("Enter")
    other.locator("#tags .name", has_text="<b>café</b>").wait_for()
    assert other.locator("#tags b").count() == 0
    page.get_by_label("Remove hot dog").click()
    until(other, "document.querySelectorAll('#tags li').length === 4")
    page.reload()
    for left in (2, 1, 0):
        page.locator("#undo:enabled").click()
        assert wait_for(lambda left=left: len(house.ask("/v1/bank").json["edits"]) == left)
    page.locator("#undo:disabled").wait_for()
    page.locator("#tags .name", has_text="hot dog").wait_for()


def test_a_tag_is_added_by_name_and_a_refusal_is_shown(
    open_page: Open, house: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text tower itself is tested in tests/export/classes."""
    asked = threading.Event()

    def made(names: list[str], *_: object) -> object:
        asked.set()
        return OTHER.bank()

    tower = house.group.edits.tower
    monkeypatch.setattr(tower, "bank", made)
    monkeypatch.setattr(tower, "warm", lambda: tower._change("ready"))
    page = open_page()
    page.get_by_label("New tags").fill("cat")
    page.locator("#tower", has_text="The text tower is loaded").wait_for()
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator("#told.bad", has_text="the bank has the tag 'cat' already").wait_for()
    page.get_by_label("New tags").fill("forklift")
    page.get_by_label("New tags").press("Enter")
    page.locator("#tags .name", has_text="forklift").wait_for()
    assert asked.is_set()
    page.locator(".bars li.on .name", has_text="forklift").first.wait_for()
    assert page.get_by_label("New tags").input_value() == ""


def test_a_tag_is_added_from_pictures(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    for index in (25, 40):
        (tmp_path / f"{index}.png").write_bytes(picture_file(index))
    page.locator("#more summary").click()
    page.get_by_label("New tag", exact=True).fill("lawn")
    page.get_by_label("Pictures that show it").set_input_files(sorted(tmp_path.glob("*.png")))
    page.get_by_role("button", name="Add from pictures").click()
    page.locator("#tags .name", has_text="lawn").wait_for()
    page.locator(".bars li.on .name", has_text="lawn").first.wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_sees_everything_and_axe_finds_nothing(dark: bool, open_page: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(390, 844, dark)
    page.locator(".bars li.on").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    photograph(page, f"phone-{'dark' if dark else 'light'}")


def test_nobody_looking_means_no_encoder(open_page: Open, house: Server) -> None:
    page = open_page()
    until(page, "document.querySelector('.picture').naturalWidth === 128")
    assert house.site.cameras["cam1"].tagged
    page.goto("about:blank")
    assert wait_for(lambda: house.ask("/v1/cameras/cam1").json["viewers"] == 0)
