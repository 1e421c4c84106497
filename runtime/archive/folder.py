"""The folder of an archive: its facts, its lock, its parts, and which clips they hold.

    tags/archive.json              what all rows depend on; written once
    tags/lock                      held while a run writes; says who holds it
    tags/TABLE/SHARD.parquet       one part a table and shard

A shard is whole once its part of the table `manifest` is there, which is renamed last.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Set as AbstractSet
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taidpt import __version__
from taidpt.runtime.archive import FEATURES
from taidpt.runtime.archive.request import difference
from taidpt.runtime.archive.schema import SCHEMA, TABLES
from taidpt.runtime.bundle.manifest import Manifest
from taidpt.runtime.errors import InputError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.address import other_scheme
from taidpt.runtime.storage.atomic import (
    atomic_file,
    lock_file,
    remove_temporaries,
    write_atomically,
)
from taidpt.runtime.storage.json_reader import JsonReader, parse_json, parse_object
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.storage.regular_file import read_regular

__all__ = ["ArchiveFolder", "PartWriter"]

_FACTS, _LOCK = "archive.json", "lock"
# A file beside the manifest's part of a shard from which clips were removed: its name is a hash of
# clips that it no longer holds. While they are being removed it names them, as JSON.
_CUT = ".cut"
# Fast to write, and half of what the default makes of scores and names.
_COMPRESSION = "zstd"
# Rows that are written together: small groups take more space and time than their rows. In memory
# there is one group for each shard that is being written.
_GROUP_BYTES = 4 << 20


class ArchiveFolder:
    """An archive on disk.

    Attributes:
        path: its folder.
        facts: the content of archive.json.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path, self.facts = path, facts

    @classmethod
    def load(cls, path: str | Path) -> ArchiveFolder:
        """Open an archive to read it.

        Raises:
            InputError: the folder is no archive.
            BundleError: its facts are damaged, or of a newer version.
        """
        folder = Path(path)
        try:
            data = read_regular(folder / _FACTS)
        except OSError as error:
            raise InputError(
                f"{path}: not an archive, its {_FACTS} cannot be read: {error.strerror}; make one "
                "with `taidpt archive BUNDLE SOURCE... -o DIR`"
            ) from None
        reader = JsonReader(parse_object(data, str(folder / _FACTS)), str(folder / _FACTS))
        reader.choice("schema", (SCHEMA,))
        options = reader.child("identity").child("options")
        options.choice("features", FEATURES)
        for name in ("smoothing_s", "min_on_s", "min_off_s"):
            options.number(name)
        return cls(folder, reader.document)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle that the clips were tagged with.

        Raises:
            BundleError: it is damaged.
        """
        text = json.dumps(self.facts.get("bundle_manifest"))
        return Manifest.from_bytes(text.encode(), str(self.path / _FACTS))

    @classmethod
    @contextlib.contextmanager
    def writing(
        cls, path: str | Path, identity: Mapping[str, Any], manifest: Manifest
    ) -> Iterator[ArchiveFolder]:
        """Make an archive or continue it, and hold its lock; remove what a killed run has left.

        Args:
            identity: what its rows depend on.
            manifest: that of the bundle.
        Raises:
            InputError: another run holds the folder, it is of something else, or it cannot be
                written.
        """
        if other_scheme(str(path)):
            raise InputError(
                f"{redact(str(path))}: an archive is written into a folder of this machine; give "
                "one with -o, and copy it when it is whole"
            )
        folder = Path(path)
        _make(folder)
        with _held(folder):
            facts = {
                "schema": SCHEMA,
                "taidpt": __version__,
                "created": _now(),
                "identity": dict(identity),
                "bundle_manifest": manifest.to_json(),
            }
            if (folder / _FACTS).exists():
                archive = cls.load(folder)
                changed = difference(archive.facts["identity"], identity)
                if changed is not None:
                    raise InputError(
                        f"{path}: was tagged {changed}; an archive holds rows of one kind, so name "
                        "another folder with -o"
                    )
            else:
                archive = cls(folder, facts)
                write_output(folder / _FACTS, json.dumps(facts, indent=1).encode() + b"\n")
            archive._tidy()
            yield archive

    def part(self, table: str, shard: str) -> Path:
        """The part of a table that holds a shard."""
        return self.path / table / f"{shard}.parquet"

    def shards(self) -> list[str]:
        """Names of the shards that are whole, sorted."""
        return sorted(self._stems("manifest"))

    def whole(self) -> set[str]:
        """Names of the shards that have a part in each table.

        A manifest alone is left where someone removed other parts.
        """
        return set.intersection(*(set(self._stems(table)) for table in TABLES))

    def cut(self) -> set[str]:
        """Names of the shards that no longer hold all clips that they are named after."""
        return set(self._stems("manifest", _CUT))

    def clips(self, shards: Iterable[str] | None = None) -> dict[str, tuple[int, int]]:
        """Clips of whole shards: name → size in bytes, time of change in ns.

        Args:
            shards: which; None: all.
        """
        table = self.read("manifest", ["clip", "bytes", "modified_ns"], shards)
        columns = [column.to_pylist() for column in table.columns]
        return {name: (size, changed) for name, size, changed in zip(*columns, strict=True)}

    def failed(self) -> set[str]:
        """Names of the clips in the table of errors."""
        return set(self.read("errors", ["clip"]).column("clip").to_pylist())

    def read(
        self, table: str, columns: list[str] | None = None, shards: Iterable[str] | None = None
    ) -> Any:
        """A whole table, of some shards or of all that are whole, as an Arrow table.

        Raises:
            InputError: a part is damaged.
        """
        shards = self.shards() if shards is None else shards
        parts = [self.read_part(table, shard, columns) for shard in shards]
        if not parts:
            return pa.table({name: [] for name in columns or ["clip"]})
        return pa.concat_tables(parts)

    def read_part(self, table: str, shard: str, columns: list[str] | None = None) -> Any:
        """The rows of one shard, as an Arrow table.

        Raises:
            InputError: the part is damaged.
        """
        path = self.part(table, shard)
        try:
            return pq.ParquetFile(path).read(columns)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path}: cannot be read: {error}; remove {self.part('manifest', shard)}, and its "
                "clips are tagged again"
            ) from None

    def drop(self, names: AbstractSet[str]) -> None:
        """Remove all rows of some clips, so that they count as new."""
        if not names:
            return
        for shard in self.shards():
            manifest = self.read_part("manifest", shard, ["clip"])
            present = set(manifest.column("clip").to_pylist())
            if present <= names:
                self.part("manifest", shard).unlink()
            elif present & names:
                self._filter(shard, present & names)
        self._tidy()

    def _filter(self, shard: str, names: Collection[str]) -> None:
        cut = self.part("manifest", shard).with_suffix(_CUT)
        with _disk_errors(cut.parent):
            write_atomically(cut, json.dumps(sorted(names)).encode())
        for table in TABLES:
            rows = self.read_part(table, shard)
            gone = pc.is_in(rows.column("clip"), pa.array(sorted(names), pa.string()))
            with _part_stream(self.part(table, shard), rows.schema) as writer:
                writer.write_table(rows.filter(pc.invert(gone)))
        with _disk_errors(cut.parent):
            write_atomically(cut, b"")

    def _stems(self, table: str, suffix: str = ".parquet") -> list[str]:
        """Names of the files in a table's folder, without a suffix that they have."""
        try:  # not Path.glob, which takes seconds for 100,000 names
            names = os.listdir(self.path / table)  # noqa: PTH208
        except FileNotFoundError:
            return []
        return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]

    def _tidy(self) -> None:
        """Finish what a killed run has begun: remove parts that are not whole, and temporaries."""
        whole = self.whole()
        for table in TABLES:
            remove_temporaries(self.path / table)
            for suffix in (".parquet", _CUT):
                for shard in set(self._stems(table, suffix)) - whole:
                    self.part(table, shard).with_suffix(suffix).unlink(missing_ok=True)
        for shard in self.cut():
            names = self.part("manifest", shard).with_suffix(_CUT).read_bytes()
            if names:
                self._filter(shard, parse_json(names))


class PartWriter(contextlib.ExitStack):
    """Writes the parts of one shard; after an exception none of them is there.

    with PartWriter(archive, shard, schemas) as writer:
        writer.write("frames", batch)
    """

    def __init__(self, archive: ArchiveFolder, shard: str, schemas: Mapping[str, Any]) -> None:
        """Create the temporaries.

        Raises:
            InputError: the folder cannot be written.
        """
        super().__init__()
        self._folder = archive.path
        self._writers: dict[str, Any] = {}
        self._waiting: dict[str, list[Any]] = {table: [] for table in TABLES}
        with contextlib.ExitStack() as opened:
            # an exit stack ends in the reverse order, and the manifest's part is renamed last
            for table in reversed(TABLES):
                path = archive.part(table, shard)
                self._writers[table] = opened.enter_context(_part_stream(path, schemas[table]))
            self.push(opened.pop_all())
        self.push(self._end)

    def write(self, table: str, batch: Any) -> None:
        """Append a record batch to a table.

        Raises:
            InputError: the disk is full.
        """
        waiting = self._waiting[table]
        waiting.append(batch)
        if sum(each.nbytes for each in waiting) >= _GROUP_BYTES:
            self._write_group(table)

    def _write_group(self, table: str) -> None:
        waiting, self._waiting[table] = self._waiting[table], []
        with _disk_errors(self._folder):
            if waiting:
                self._writers[table].write_table(pa.Table.from_batches(waiting))

    def _end(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for table in TABLES:
                self._write_group(table)


@contextlib.contextmanager
def _part_stream(path: Path, schema: Any) -> Iterator[Any]:
    """A parquet writer whose file appears whole at the end of the `with`."""
    # Features hardly repeat: a dictionary of them would double their size.
    names = [field.name for field in schema if not field.name.endswith("_features")]
    plain = [name for name in names if name != "top"]
    nested = ["top.list.element.tag"] if "top" in names else []
    with (
        _disk_errors(path.parent),
        atomic_file(path) as stream,
        pq.ParquetWriter(
            stream, schema, compression=_COMPRESSION, use_dictionary=[*plain, *nested]
        ) as writer,
    ):
        yield writer


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{folder}: cannot be written: {reason}; finished shards are kept: run the same "
            "command again to continue"
        ) from None


def _make(folder: Path) -> None:
    try:
        if folder.is_dir() and not (folder / _FACTS).exists():
            others = {path.name for path in folder.iterdir()} - {_LOCK, *TABLES}
            if others:
                raise InputError(
                    f"{folder}: holds other files ({sorted(others)[0]}), and no archive; name a "
                    "new folder with -o"
                )
        for table in TABLES:
            (folder / table).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from None


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the archive's lock; the system releases it when the process ends.

    A file system without locks holds none: there it is up to the user.
    """
    path = folder / _LOCK
    try:
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    with stream:
        if lock_file(stream.fileno(), wait=False) is False:
            stream.seek(0)
            raise InputError(
                f"{folder}: {stream.read().strip() or 'another process'} writes to this archive; "
                "wait for it, or name another folder with -o"
            )
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()} (since {_now()})\n")
        stream.flush()
        yield
        stream.truncate(0)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
