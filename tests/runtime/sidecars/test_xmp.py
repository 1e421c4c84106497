"""XMP sidecars of other programs: what is kept, what is ours, and what is refused."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sidecars.xmp import OWN_NAMESPACE, Sidecar

DC, LR = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/lightroom/1.0/"
DIGIKAM = "http://www.digikam.org/ns/1.0/"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
LISTS = (f"{{{DC}}}subject", f"{{{LR}}}hierarchicalSubject", f"{{{DIGIKAM}}}TagsList")
# Another program's: other prefixes, an edit history, a caption with line breaks in an attribute,
# a comment, a keyword in CDATA, no list of digiKam's.
FOREIGN = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <r:Description r:about="uuid:1" xmlns:dt="http://darktable.sf.net/" xmlns:d="{DC}"
    dt:history_end="3" dt:note="first&#10;second &lt;line&gt; &quot;x&quot;">
   <!-- by hand -->
   <d:subject><r:Seq><r:li>Grandma</r:li><r:li><![CDATA[beach & sea]]></r:li></r:Seq></d:subject>
  </r:Description>
  <r:Description r:about="uuid:1" xmlns:lr="{LR}">
   <lr:hierarchicalSubject><r:Bag><r:li>people|Grandma</r:li></r:Bag></lr:hierarchicalSubject>
  </r:Description>
 </r:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()


def entries(data: bytes, name: str) -> list[str] | None:
    """The keywords of a list, by a parser of its own; None if it is not there."""
    found = ElementTree.fromstring(data).find(f".//{name}")
    return None if found is None else [item.text or "" for item in found.iter(f"{RDF}li")]


def written(data: bytes | None, *tags: str) -> bytes:
    sidecar = Sidecar(data, "a.xmp")
    assert sidecar.set_tags(tags)
    return sidecar.to_bytes()


def same(first: bytes, second: bytes) -> bool:
    canonical = [ElementTree.canonicalize(data, strip_text=True) for data in (first, second)]
    return canonical[0] == canonical[1]


def test_a_new_sidecar_has_all_lists() -> None:
    data = written(None, "tram/bus", "a|b", "<ü> & \x01")
    assert entries(data, LISTS[0]) == ["tram/bus", "a|b", "<ü> & \ufffd"]
    assert entries(data, LISTS[1]) == ["tram/bus", "a b", "<ü> & \ufffd"]
    assert entries(data, LISTS[2]) == ["tram bus", "a|b", "<ü> & \ufffd"]
    assert not Sidecar(data, "a.xmp").set_tags(["tram/bus", "a|b", "<ü> & \x01"])
    emptied = Sidecar(data, "a.xmp")
    assert not emptied.is_empty
    assert emptied.set_tags([])
    assert emptied.is_empty


def test_what_others_wrote_stays() -> None:
    data = written(FOREIGN, "car", "dog")
    assert entries(data, LISTS[0]) == ["Grandma", "beach & sea", "car", "dog"]
    assert entries(data, LISTS[1]) == ["people|Grandma", "car", "dog"]
    assert entries(data, LISTS[2]) is None  # it would hide Grandma where it is read first
    assert b'dt:note="first&#10;second &lt;line&gt; &quot;x&quot;"' in data
    changed = written(data, "dog", "tram")
    assert entries(changed, LISTS[0]) == ["Grandma", "beach & sea", "dog", "tram"]
    removed = Sidecar(changed, "a.xmp")
    assert removed.set_tags([])
    assert not removed.is_empty
    assert same(removed.to_bytes(), FOREIGN)
    assert b"<!-- by hand -->" in removed.to_bytes()


def test_keywords_of_others_are_not_ours() -> None:
    """One that was there, in any case of letters, is neither doubled nor removed."""
    data = written(FOREIGN, "grandma", "car")
    assert entries(data, LISTS[0]) == ["Grandma", "beach & sea", "car"]
    assert entries(written(data), LISTS[0]) == ["Grandma", "beach & sea"]


def test_a_tag_that_somebody_deleted_stays_deleted() -> None:
    data = written(None, "car", "dog").replace(b"<rdf:li>car</rdf:li>", b"", 1)
    assert entries(data, LISTS[0]) == ["dog"]
    assert not Sidecar(data, "a.xmp").set_tags(["car", "dog"])
    assert entries(written(data, "car", "dog", "tram"), LISTS[0]) == ["dog", "tram"]


def test_a_list_of_ours_alone_goes_when_it_would_hide_others() -> None:
    data = written(None, "car")
    item = b"<rdf:li>car</rdf:li>"
    data = data.replace(item, item + b"<rdf:li>Grandma</rdf:li>", 1)  # in dc:subject
    data = written(data, "car", "dog")
    assert [entries(data, name) for name in LISTS] == [["car", "Grandma", "dog"], None, None]


@pytest.mark.parametrize(
    "body",
    [
        '<rdf:Description rdf:about=""/>',
        '<rdf:Description rdf:about=""><dc:subject xmlns:dc="http://purl.org/dc/elements/1.1/"/>'
        "</rdf:Description>",
        "",
    ],
    ids=["no list", "an empty list", "no description"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_bare_documents(body: str, encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    name = f"<rdf:RDF xmlns:rdf='{RDF[1:-1]}'>{body}</rdf:RDF>"
    data = written((head + name).encode(encoding), "café")
    assert entries(data, LISTS[0]) == ["café"]
    assert f"{{{OWN_NAMESPACE}}}subject" in {e.tag for e in ElementTree.fromstring(data).iter()}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (FOREIGN[:-60], "is damaged"),
        (b"", "is damaged"),
        (b"<html/>", "is not XMP, it has no rdf:RDF"),
        (FOREIGN.replace(b"dt:history", b"zz:history"), "is damaged"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + FOREIGN[FOREIGN.index(b"\n") + 1 :], "document type"),
        (b"<a>" * 2000 + b"</a>" * 2000, "nests over 100 levels"),
        (b'<?xml version="1.0" encoding="nonsense"?><a/>', "is damaged"),
        (
            FOREIGN.replace(b"r:Seq", b"r:bag").replace(b"<r:bag>", b"<r:li/><r:bag>"),
            "not one list",
        ),
        (FOREIGN.replace(b"dt:note", b"d:subject"), "not one list"),
    ],
    ids=range(9),
)
def test_damaged_and_hostile_documents(data: bytes, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^a\.xmp: .*{text}.*; it is left as it is$"):
        Sidecar(data, "a.xmp").set_tags(["car"])
