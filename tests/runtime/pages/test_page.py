"""The frame of every page."""

from __future__ import annotations

import re

from taidpt.runtime.pages.page import page, style


def test_page_escapes_its_title_and_refers_to_nothing_outside() -> None:
    text = page("<b>1 & 2</b>", "<p>body</p>", "a < b").decode()
    assert "<title>&lt;b&gt;1 &amp; 2&lt;/b&gt;</title>" in text
    assert "a &lt; b" in text
    assert "<p>body</p>" in text
    assert "<script" not in text
    assert not re.search(r"url\(|@import|https?:|src=|href=", text)


def test_colours_are_defined_for_light_and_dark() -> None:
    light, dark = style("colours.css").split("@media")
    names = set(re.findall(r"--[a-z]+(?=:)", light)) - {"--font"}
    assert names == set(re.findall(r"--[a-z]+(?=:)", dark))
    used = set(re.findall(r"var\((--[a-z]+)\)", style()))
    assert used <= names | {"--font"}


def contrast(first: str, second: str) -> float:
    """WCAG 2.1's contrast ratio of two colours `#rrggbb`."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_text_is_legible_in_both_schemes() -> None:
    """WCAG's level AA: 4.5 to 1 for text."""
    for part in style("colours.css").split("@media"):
        colours = dict(re.findall(r"(--[a-z]+): (#[0-9a-f]{6})", part))
        for text in ("--ink", "--soft", "--accent", "--warn", "--bad"):
            for ground in ("--paper", "--card"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
