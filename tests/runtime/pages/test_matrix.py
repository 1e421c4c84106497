"""A matrix of shares, parsed again."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from taidpt.runtime.pages.matrix import matrix

NAMES = ("dog", "<b> & co", "a name that is longer than the margin has room for")


def test_cells_stand_at_their_row_and_column() -> None:
    values = np.array([[1.0, 0.4, np.nan], [0.4, 1.0, 0.01], [-3.0, 0.01, 7.0]])
    root = ElementTree.fromstring(matrix(NAMES, values))
    cells = {
        cell[0].text: (cell.attrib["x"], cell.attrib["y"], float(cell.attrib["fill-opacity"]))
        for cell in root.iter("rect")
    }
    assert cells["dog and <b> & co: 0.40"][2] == 0.4
    assert cells["dog and <b> & co: 0.40"][:2] == cells["<b> & co and dog: 0.40"][1::-1]
    assert cells[f"{NAMES[2]} and {NAMES[2]}: 1.00"][2] == 1.0
    assert len(cells) == 5
    texts = [text.text or "" for text in root.iter("text")]
    assert texts[:2] == ["dog", "dog"]
    assert max(map(len, texts)) == 22
