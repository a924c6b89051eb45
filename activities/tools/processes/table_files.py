"""Which files are tables, what their tables are called, and who reads them. No database here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".json": "read_json_auto",
    ".jsonl": "read_json_auto",
    ".ndjson": "read_json_auto",
    ".parquet": "read_parquet",
}
SQLITE_SUFFIXES = (".sqlite", ".sqlite3", ".db", ".db3")
PACKED_SUFFIXES = (".gz", ".zst")
KINDS = "It reads SQLite, CSV, TSV, JSON, JSON lines and Parquet files (also .gz)."


@dataclass(frozen=True)
class TableFile:
    """A source: its real path, its path as the plan writes it, its table's name, its reader.

    `reader` is `sqlite` or a function of DuckDB.
    """

    path: str
    shown: str
    name: str
    reader: str


def table_file(path: Path, shown: str) -> TableFile | None:
    """The file as a table, or None when it is of no kind that can be read."""
    bare = path.with_suffix("") if path.suffix in PACKED_SUFFIXES else path
    suffix = bare.suffix.lower()
    if suffix in SQLITE_SUFFIXES or (suffix not in READERS and _is_sqlite(path)):
        return TableFile(str(path), shown, bare.stem, "sqlite")
    reader = READERS.get(suffix)
    return TableFile(str(path), shown, bare.stem, reader) if reader else None


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"
