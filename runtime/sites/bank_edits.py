"""Changes of the tags while the site runs: each is kept as a bank of its own, and can be undone."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taidpt.runtime.bank.class_bank import ClassBank, Threshold, join_banks
from taidpt.runtime.bank.thresholds import Thresholds
from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.sites.text_tower import TextTower
from taidpt.runtime.storage.json_reader import JsonReader, parse_object
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.tagger.active_bank import check_fit
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["BankEdits", "Edit"]

_LOG = logging.getLogger("taidpt.runtime")
_SCHEMA = 1
# Edits that can be undone. A bank of 80 tags has some hundred kilobytes, one of 20,000 some hundred
# megabytes: the files together are kept below a gigabyte, but for the newest two.
_MOST_EDITS, _MOST_BYTES = 100, 1 << 30


@dataclass(frozen=True)
class Edit:
    """One change.

    Attributes:
        number: of its bank file.
        at: seconds since 1970.
        what: in words, for people.
    """

    number: int
    at: float
    what: str


class BankEdits:
    """The tagger's bank with a history in a folder: `edits.json`, and a bank file an edit.

    Methods may be called by several threads; changes are applied one after another.

    Attributes:
        edits: the present bank and those before it; empty before the first edit.
        tower: makes rows of names.
        on_change: called after each change.
    """

    def __init__(
        self,
        tagger: Tagger,
        folder: Path,
        prompts: str | None = None,
    ) -> None:
        """Continue with the bank of the last edit.

        Args:
            tagger: its bank is changed.
            folder: where the history is; it is made with the first edit.
            prompts: prompts file for names that are added; None: templates.
        Raises:
            InputError: the history is damaged.
        """
        self._tagger, self._folder = tagger, folder
        self.tower = TextTower(tagger.bundle, prompts)
        self.on_change: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self.edits = self._read()
        if len(self.edits) > 1:
            self._resume()
        self.edits = self.edits if len(self.edits) > 1 else ()  # the bundle's own may be newer

    def start_with(self, path: str) -> None:
        """Use a bank file, as an edit unless it is in use already.

        Raises:
            TaidptError: it cannot be used.
        """
        bank, present = ClassBank.load(path), self._tagger.class_bank
        if not (bank.has_rows_of(present) and bank.thresholds == present.thresholds):
            self.replace(bank, f"bank {Path(path).name}")

    def replace(self, bank: ClassBank, what: str) -> None:
        """Use another bank; errors as of `Tagger.use_bank`."""
        self._change(lambda _: bank, what)

    def add(self, names: Sequence[str]) -> None:
        """Add tags by name, with the text tower; errors as of `TextTower.bank`."""
        known = set(self._tagger.names)
        for name in names:
            if name in known:
                raise InputError(f"the bank has the tag {name!r} already")
            known.add(name)
        self.join(self.tower.bank(names))

    def join(self, bank: ClassBank) -> None:
        """Add the tags of a bank.

        Raises:
            InputError: it does not fit the bundle, or shares a tag with the present bank.
        """
        bank = check_fit(bank, self._tagger.bundle, "the added bank")
        self._change(lambda present: join_banks(present, bank), f"added {', '.join(bank.names)}")

    def remove(self, name: str) -> None:
        """Remove a tag; errors as of `LiveBank.remove`."""
        self._change(lambda bank: bank.without([name]), f"removed {name}")

    def rename(self, name: str, new: str) -> None:
        """Rename a tag; InputError if there is none, or the new name exists."""

        def renamed(bank: ClassBank) -> ClassBank:
            bank.select([name])
            names = tuple(new if other == name else other for other in bank.names)
            return dataclasses.replace(bank, names=names)

        self._change(renamed, f"renamed {name} to {new}")

    def set_threshold(self, name: str, on: float, off: float | None = None) -> None:
        """Set the threshold of a tag.

        Args:
            name: the tag.
            on: scores of at least this turn it on.
            off: scores below this turn it off; None keeps the distance between the two.
        Raises:
            InputError: there is no such tag, or `off` is above `on`.
        """

        def changed(bank: ClassBank) -> ClassBank:
            bank.select([name])
            rows = Thresholds.of(bank.thresholds)
            index = bank.names.index(name)
            old = rows[index]
            assert isinstance(old, Threshold)
            new = Threshold(on, on - (old.on - old.off) if off is None else off, "set by hand")
            ons, offs = np.array(rows.on), np.array(rows.off)
            ons[index], offs[index] = new.on, new.off
            sources = [*rows.sources]
            sources[index] = new.source
            return dataclasses.replace(bank, thresholds=Thresholds(ons, offs, tuple(sources)))

        self._change(changed, f"threshold of {name} to {on:.3g}")

    def undo(self) -> Edit:
        """Return to the bank before the last edit.

        Raises:
            InputError: there is nothing to undo.
        """
        with self._lock:
            if len(self.edits) < 2:
                raise InputError("there is no edit to undo")
            last = self.edits[-1]
            self._tagger.use_bank(ClassBank.load(self._file(self.edits[-2].number)))
            self.edits = self.edits[:-1]
            self._write()
            self._file(last.number).unlink(missing_ok=True)
        self.on_change()
        return last

    def _change(self, change: Callable[[ClassBank], ClassBank], what: str) -> None:
        with self._lock:
            before = self._tagger.class_bank
            self._tagger.change_bank(change)
            self._keep(before, what)

    def _keep(self, before: ClassBank, what: str) -> None:
        """Save the bank after a change; where that fails, return to the bank before."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self.edits:
                self._save(before, "the bank at the start")
            self._save(self._tagger.class_bank, what)
            self._forget()
            self._write()
        except (InputError, OSError) as error:
            self._tagger.use_bank(before)
            self.edits = self._read()
            raise InputError(f"the change is undone, because it cannot be kept: {error}") from None
        self.on_change()

    def _save(self, bank: ClassBank, what: str) -> None:
        number = self.edits[-1].number + 1 if self.edits else 0
        bank.save(self._file(number))
        self.edits = (*self.edits, Edit(number, time.time(), what))

    def _forget(self) -> None:
        """Drop the oldest edits beyond the limits."""
        sizes = [self._file(edit.number).stat().st_size for edit in self.edits]
        while len(self.edits) > 2 and (len(self.edits) > _MOST_EDITS or sum(sizes) > _MOST_BYTES):
            self._file(self.edits[0].number).unlink(missing_ok=True)
            self.edits = self.edits[1:]
            sizes.pop(0)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.bank"

    def _write(self) -> None:
        edits = [dataclasses.asdict(edit) for edit in self.edits]
        text = json.dumps({"schema": _SCHEMA, "edits": edits}, ensure_ascii=False, indent=1)
        write_output(self._folder / "edits.json", text.encode("utf-8", "backslashreplace"))

    def _read(self) -> tuple[Edit, ...]:
        path = self._folder / "edits.json"
        if not path.exists():
            return ()
        try:
            reader = JsonReader(parse_object(path.read_text("utf-8"), str(path)), str(path))
            newer = reader.integer("schema") > _SCHEMA
            edits = tuple(
                Edit(edit.integer("number"), edit.number("at"), edit.string("what"))
                for edit in reader.children("edits")
            )
        except (TaidptError, OSError, UnicodeDecodeError):
            raise InputError(f"{path}: damaged; move {self._folder} away to start anew") from None
        if newer:
            raise InputError(f"{path}: written by a newer taidpt; update, or move it away")
        return edits

    def _resume(self) -> None:
        path = self._file(self.edits[-1].number)
        try:
            self._tagger.use_bank(ClassBank.load(path))
        except TaidptError as error:  # another bundle since
            _LOG.warning("%s; the edits of the page are not used, the bundle's tags are", error)
            aside = self._folder.with_name(f"{self._folder.name}-{time.time():.0f}")
            self._folder.rename(aside)
            self.edits = ()
