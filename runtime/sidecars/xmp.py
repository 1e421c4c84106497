"""One XMP sidecar: the lists of keywords that photo libraries read, and which entries are ours.

Ours are recorded in lists of the same names in a namespace of our own, which other programs keep,
so that only they are changed and removed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.dom import Node, minidom
from xml.parsers import expat
from xml.sax.saxutils import escape

from taidpt.runtime.errors import InputError

__all__ = ["OWN_NAMESPACE", "Sidecar"]

OWN_NAMESPACE = "https://github.com/taidpt/taidpt/ns/xmp/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMLNS = "http://www.w3.org/2000/xmlns/"
# XMP nests a handful of levels; the parser's tree and our writer are recursive.
_DEEPEST = 100
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EMPTY = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{_RDF}">
  <rdf:Description rdf:about=""/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


@dataclass(frozen=True)
class _List:
    """A property that is a list of keywords.

    Attributes:
        separator: between the levels of a keyword's path; a tag has one level.
    """

    namespace: str
    prefix: str
    name: str
    container: str
    separator: str = ""

    def entry(self, tag: str) -> str:
        """A tag as an entry of this list."""
        text = _NOT_IN_XML.sub("\ufffd", tag)
        return text.replace(self.separator, " ") if self.separator else text

    @property
    def own(self) -> _List:
        """The record of our entries in this list."""
        return _List(OWN_NAMESPACE, "taidpt", self.name, "Bag")


# Libraries read the first list that is there: TagsList, hierarchicalSubject, subject (digiKam,
# immich). `subject` is the one that all programs have.
_SUBJECT = _List("http://purl.org/dc/elements/1.1/", "dc", "subject", "Bag")
_LISTS = (
    _SUBJECT,
    _List("http://ns.adobe.com/lightroom/1.0/", "lr", "hierarchicalSubject", "Bag", "|"),
    _List("http://www.digikam.org/ns/1.0/", "digiKam", "TagsList", "Seq", "/"),
)


class Sidecar:
    """The document of a sidecar, changed in memory."""

    def __init__(self, data: bytes | None, name: str) -> None:
        """Parse a sidecar, or begin a new one.

        Args:
            data: its content; None: there is none yet.
            name: what errors call it.
        Raises:
            InputError: it is not XMP, is damaged, or has a document type.
        """
        self._name = name
        self._document = _parse(_EMPTY.encode() if data is None else data, name)
        found = self._document.getElementsByTagNameNS(_RDF, "RDF")
        if not found:
            raise InputError(f"{name}: is not XMP, it has no rdf:RDF; it is left as it is")
        self._rdf = found[0]

    def set_tags(self, tags: Sequence[str]) -> bool:
        """Make some tags our entries, and no others; whether something has changed.

        Entries of others stay. A keyword that is there already is not entered again, and one of
        ours that somebody has deleted from a list does not come back.

        Raises:
            InputError: a list has a form that is not XMP's; nothing has changed then.
        """
        present = {kind: (self._entries(kind), self._entries(kind.own)) for kind in _LISTS}
        foreign = {kind: set(entries) - set(ours) for kind, (entries, ours) in present.items()}
        changed = False
        for kind, (entries, ours) in present.items():
            # A list of our tags alone would hide the keywords in a list of another kind.
            fits = kind is _SUBJECT or foreign[kind] or not any(foreign.values())
            wanted = list(dict.fromkeys(map(kind.entry, tags))) if fits else []
            held = {entry.casefold() for entry in entries}
            new = [entry for entry in wanted if entry not in ours and entry.casefold() not in held]
            old = [entry for entry in ours if entry not in wanted]
            for target in (kind, kind.own):
                self._change(target, new, old)
            changed = changed or bool(new or old)
        return changed

    @property
    def is_empty(self) -> bool:
        """Whether it holds no property at all."""
        return not any(
            any(_elements(description))
            or any(name.namespaceURI not in (_XMLNS, _RDF) for name in _attributes(description))
            for description in self._descriptions()
        )

    def to_bytes(self) -> bytes:
        """The document in UTF-8."""
        head = ['<?xml version="1.0" encoding="UTF-8"?>'] if self._document.encoding else []
        body = ("".join(_markup(node)) for node in self._document.childNodes)
        return "\n".join([*head, *body, ""]).encode()

    def _descriptions(self) -> list[Any]:
        return list(_elements(self._rdf, _RDF, "Description"))

    def _property(self, kind: _List) -> Any:
        """The element of a list, or None.

        Raises:
            InputError: it is written as an attribute, or twice.
        """
        descriptions = self._descriptions()
        found = [e for d in descriptions for e in _elements(d, kind.namespace, kind.name)]
        if len(found) > 1 or any(d.hasAttributeNS(kind.namespace, kind.name) for d in descriptions):
            self._refuse(kind)
        return found[0] if found else None

    def _container(self, kind: _List) -> Any:
        """The rdf:Bag, rdf:Seq or rdf:Alt of a list, or None."""
        element = self._property(kind)
        if element is None:
            return None
        inside = list(_elements(element))
        if len(inside) == 1 and inside[0].namespaceURI == _RDF:
            return inside[0]
        if inside or _text(element).strip():
            self._refuse(kind)
        return None

    def _refuse(self, kind: _List) -> None:
        raise InputError(
            f"{self._name}: its {kind.prefix}:{kind.name} is not one list; it is left as it is"
        )

    def _entries(self, kind: _List) -> list[str]:
        container = self._container(kind)
        return [] if container is None else [_text(e) for e in _elements(container, _RDF, "li")]

    def _change(self, kind: _List, new: Sequence[str], old: Sequence[str]) -> None:
        """Append entries to a list and remove others; make it, or remove it when it is empty."""
        container = self._container(kind)
        if container is None and new:
            container = self._make(kind)
        if container is None:
            return
        for element in list(_elements(container, _RDF, "li")):
            if _text(element) in old:
                _remove(element)
        for entry in new:
            item = self._element(container, "rdf", _RDF, "li")
            item.appendChild(self._document.createTextNode(entry))
        if old and not any(_elements(container)):
            _remove(container.parentNode)

    def _make(self, kind: _List) -> Any:
        """A new, empty list."""
        element = self._property(kind)
        if element is None:
            descriptions = self._descriptions()
            parent = (
                descriptions[0]
                if descriptions
                else self._element(self._rdf, "rdf", _RDF, "Description")
            )
            element = self._element(parent, kind.prefix, kind.namespace, kind.name)
        return self._element(element, "rdf", _RDF, kind.container)

    def _element(self, parent: Any, prefix: str, namespace: str, name: str) -> Any:
        """A new last child on a line of its own; its prefix is declared where it is not yet."""
        element = self._document.createElementNS(namespace, f"{prefix}:{name}")
        if _declared(parent, prefix) != namespace:
            element.setAttributeNS(_XMLNS, f"xmlns:{prefix}", namespace)
        indent = "\n" + " " * sum(1 for _ in _ancestors(parent))
        last = parent.lastChild
        if last is None or last.nodeType != Node.TEXT_NODE:
            last = parent.appendChild(self._document.createTextNode(indent[:-1]))
        parent.insertBefore(self._document.createTextNode(indent), last)
        parent.insertBefore(element, last)
        return element


def _parse(data: bytes, name: str) -> Any:
    """The tree of an XML document without a document type.

    Raises:
        InputError: it is damaged, or nests too deeply.
    """
    depth = 0

    def start(*_: Any) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise InputError(f"{name}: nests over {_DEEPEST} levels; it is left as it is")

    def end(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*_: Any) -> None:
        # entities can make a small file huge, and XMP has none
        raise InputError(f"{name}: has a document type, which XMP has not; it is left as it is")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return minidom.parseString(data)
    except InputError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InputError(f"{name}: is damaged ({error}); it is left as it is") from None


def _elements(parent: Any, namespace: str | None = None, name: str | None = None) -> Iterator[Any]:
    """Child elements, of one name if it is given."""
    for node in parent.childNodes:
        if node.nodeType == Node.ELEMENT_NODE and (
            namespace is None or (node.namespaceURI, node.localName) == (namespace, name)
        ):
            yield node


def _attributes(element: Any) -> list[Any]:
    return [element.attributes.item(index) for index in range(element.attributes.length)]


def _ancestors(element: Any) -> Iterator[Any]:
    """The element and all that it lies in."""
    while element is not None and element.nodeType == Node.ELEMENT_NODE:
        yield element
        element = element.parentNode


def _declared(element: Any, prefix: str) -> str | None:
    """The namespace that a prefix means inside an element."""
    for place in _ancestors(element):
        with contextlib.suppress(KeyError):
            value: str = place.attributes[f"xmlns:{prefix}"].value
            return value
    return None


def _text(element: Any) -> str:
    kinds = (Node.TEXT_NODE, Node.CDATA_SECTION_NODE)
    return "".join(node.data for node in element.childNodes if node.nodeType in kinds)


def _remove(element: Any) -> None:
    """Remove an element and the blanks before it."""
    parent, before = element.parentNode, element.previousSibling
    if before is not None and before.nodeType == Node.TEXT_NODE and not before.data.strip():
        parent.removeChild(before)
    parent.removeChild(element)


def _markup(node: Any) -> Iterator[str]:
    """A node as XML. Before Python 3.13, minidom's own writer loses line breaks in attributes."""
    if node.nodeType == Node.ELEMENT_NODE:
        yield f"<{node.tagName}"
        for attribute in _attributes(node):
            breaks = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;", '"': "&quot;"}
            yield f' {attribute.name}="{escape(attribute.value, breaks)}"'
        if not node.childNodes:
            yield "/>"
            return
        yield ">"
        for child in node.childNodes:
            yield from _markup(child)
        yield f"</{node.tagName}>"
    elif node.nodeType == Node.TEXT_NODE:
        yield escape(node.data, {"\r": "&#13;"})
    elif node.nodeType == Node.CDATA_SECTION_NODE:
        yield f"<![CDATA[{node.data}]]>"
    elif node.nodeType == Node.COMMENT_NODE:
        yield f"<!--{node.data}-->"
    elif node.nodeType == Node.PROCESSING_INSTRUCTION_NODE:
        yield f"<?{node.target} {node.data}?>"
