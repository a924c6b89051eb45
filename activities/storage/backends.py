"""Where bytes lie: a folder, or object storage. Both write whole or not at all, and can create.

The folder is written by hand: obstore's `LocalStore` has neither fsync nor permissions, and takes
two to five times as long a call. See docs/decisions/0009-blob-backends.md.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore, from_url

from planloom.planner.contract.settings import shown_address

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
RETRIES_MAX = 3
RETRY_SECONDS = 30.0
"""Of one call. Temporal tries the activity again anyway, and says so."""


REASON_MAX_CHARS = 300
RENEW_SECONDS = 3600.0
"""A value that is used again and is older than this counts as written now."""
PART_SUFFIX = ".part"


class BlobError(Exception):
    """A blob that cannot be read or written, with its hash and place."""


class PassingError(BlobError):
    """One that may pass by itself: the store is full or away, or does not show a value yet."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One value that lies in a backend."""

    name: str
    size: int
    modified: float
    """Seconds since 1970."""


class Backend(Protocol):
    """Bytes by name, at `<first two characters>/<name>`. A reader sees a whole value or nothing."""

    place: str
    is_local: bool
    """On this machine's disk: a small value is read faster than a thread starts."""

    def within(self, folder: str, *, is_durable: bool = True) -> Backend:
        """A backend for other values in the same place, in a folder that no name can begin with.

        What need not be durable may be lost in a power cut, and is written sooner.
        """
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write, over what was there. When it returns, a power cut loses nothing."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Write unless there is something: of many who try at once exactly one gets True.

        Over a network, a call that was answered and whose answer was lost says False.
        """
        ...

    def get(self, name: str) -> bytes | None: ...

    def beginning(self, name: str, count: int) -> bytes | None:
        """The first bytes of a value; None when there is nothing."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes; None when there is nothing."""
        ...

    def delete(self, name: str) -> None:
        """Harmless when there is nothing."""
        ...

    def keep(self, name: str, size: int) -> bool:
        """Whether a value of that size is there and stays: one that is old counts as new from now
        on, so that no garbage collection takes it. If not, write it."""
        ...

    def entries(self) -> Iterator[Entry]:
        """All values, in no order; not those `within` it."""
        ...

    def delete_older(self, name: str, before: float) -> bool:
        """Delete a value unless it was written or kept since `before`; whether it was deleted."""
        ...


class FolderBackend:
    """Files that only their owner may read; folders that only their owner may enter."""

    is_local = True

    def __init__(self, folder: Path, *, is_durable: bool = True) -> None:
        self.folder = folder
        self.place = str(folder)
        self._is_durable = is_durable

    def within(self, folder: str, *, is_durable: bool = True) -> FolderBackend:
        return FolderBackend(self.folder / folder, is_durable=is_durable)

    def path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def put(self, name: str, content: bytes) -> None:
        with self._written_beside(name, content) as (part, path):
            part.replace(path)

    def create(self, name: str, content: bytes) -> bool:
        with self._written_beside(name, content) as (part, path):
            try:
                # A link, not a rename: it fails when the name is taken, and is whole at once.
                os.link(part, path)
            except FileExistsError:
                return False
        return True

    @contextlib.contextmanager
    def _written_beside(self, name: str, content: bytes) -> Iterator[tuple[Path, Path]]:
        path = self.path(name)
        self._make_folder(path.parent)
        descriptor, part_name = tempfile.mkstemp(".part", ".", path.parent)  # of mode 0600
        part = Path(part_name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if self._is_durable:
                    os.fsync(descriptor)
            yield part, path
            if self._is_durable:
                _sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        missing: list[Path] = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            if self._is_durable:
                _sync_folder(each.parent)

    def get(self, name: str) -> bytes | None:
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    def beginning(self, name: str, count: int) -> bytes | None:
        try:
            with self.path(name).open("rb") as file:
                return file.read(count)
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def keep(self, name: str, size: int) -> bool:
        path = self.path(name)
        try:
            found = path.stat()
            if found.st_size == size and time.time() - found.st_mtime > RENEW_SECONDS:
                os.utime(path)
        except FileNotFoundError:
            return False
        return found.st_size == size

    def entries(self) -> Iterator[Entry]:
        # Names of one folder begin with its name: what lies `within` does not.
        for path in self.folder.glob("??/*"):
            is_part = path.name.startswith(".") and path.suffix == PART_SUFFIX
            if is_part or path.name.startswith(path.parent.name):
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat()
                    name = f"{path.parent.name}/{path.name}" if is_part else path.name
                    yield Entry(name, found.st_size, found.st_mtime)

    def delete_older(self, name: str, before: float) -> bool:
        # Renamed first: whoever keeps it now finds it gone and writes it, or has kept it before.
        path = self.folder / name if "/" in name else self.path(name)
        doomed = path.with_name(f".{path.name}{PART_SUFFIX}")
        try:
            path.rename(doomed)
        except FileNotFoundError:
            return False
        if is_old := doomed.stat().st_mtime < before:
            doomed.unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(doomed, path)
            doomed.unlink(missing_ok=True)
        return is_old


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ObjectBackend:
    """Objects in S3, Google Cloud Storage or Azure, by obstore."""

    is_local = False

    def __init__(self, place: str, store: ObjectStore, prefix: str = "") -> None:
        self.place = place
        self._store = store
        self._prefix = prefix

    def within(self, folder: str, *, is_durable: bool = True) -> ObjectBackend:
        return ObjectBackend(f"{self.place}/{folder}", self._store, f"{self._prefix}{folder}/")

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name[:2]}/{name}"

    def put(self, name: str, content: bytes) -> None:
        obstore.put(self._store, self._key(name), content)

    def create(self, name: str, content: bytes) -> bool:
        try:
            obstore.put(self._store, self._key(name), content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def get(self, name: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, self._key(name)).bytes())
        except FileNotFoundError:
            return None

    def beginning(self, name: str, count: int) -> bytes | None:
        try:
            return bytes(obstore.get_range(self._store, self._key(name), start=0, length=count))
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        try:
            return int(obstore.head(self._store, self._key(name))["size"])
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, self._key(name))

    def keep(self, name: str, size: int) -> bool:
        try:
            found = obstore.head(self._store, self._key(name))
        except FileNotFoundError:
            return False
        # An object's time changes only when it is written.
        is_new = time.time() - found["last_modified"].timestamp() <= RENEW_SECONDS
        return is_new and int(found["size"]) == size

    def entries(self) -> Iterator[Entry]:
        for page in obstore.list(self._store, prefix=self._prefix or None):
            for found in page:
                folder, _, name = found["path"].removeprefix(self._prefix).partition("/")
                if name.startswith(folder) and "/" not in name:
                    yield Entry(name, int(found["size"]), found["last_modified"].timestamp())

    def delete_older(self, name: str, before: float) -> bool:
        try:
            found = obstore.head(self._store, self._key(name))
        except FileNotFoundError:
            return False
        if found["last_modified"].timestamp() >= before:
            return False
        self.delete(name)
        return True


def open_backend(location: str | Path, environment: Mapping[str, str] = os.environ) -> Backend:
    """The backend of a folder, or of `s3://bucket/prefix`, `gs://…`, `az://…`.

    Object storage takes its keys, region and endpoint from the variables that its own programs
    read (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`, …); for S3 also from profiles, when
    boto3 is installed.

    Raises:
        BlobError: an address of another kind, or one that cannot be used.
    """
    text = str(location)
    if "://" not in text:
        return FolderBackend(Path(text))
    url, shown = urlsplit(text), shown_address(text)
    if url.scheme not in SCHEMES:
        raise BlobError(
            f'"{shown}" is not a place for blobs: write a folder, s3://bucket/prefix, '
            "gs://bucket/prefix or az://account/container/prefix"
        )
    if not url.netloc:
        raise BlobError(f'"{shown}" names no bucket: write {url.scheme}://bucket/prefix')
    is_s3 = url.scheme == "s3"
    try:
        store = from_url(
            text,
            # One DELETE a key: not every S3-compatible store has the other way.
            config={"disable_bulk_delete": True} if is_s3 else None,
            client_options={"allow_http": _is_plain_http(environment)},
            retry_config={
                "max_retries": RETRIES_MAX,
                "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            },
            credential_provider=_profile(environment) if is_s3 else None,
        )
    except Exception as error:
        raise BlobError(f"{shown} cannot be used for blobs: {short_reason(error)}") from None
    return ObjectBackend(shown.rstrip("/"), store)


def short_reason(error: BaseException) -> str:
    """The first line of an error: obstore adds pages of internal state."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:REASON_MAX_CHARS]}"


def _is_plain_http(environment: Mapping[str, str]) -> bool:
    # Who names an endpoint by http:// means it; over https:// nothing falls back.
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return any(environment.get(name, "").startswith("http://") for name in names)


def _profile(environment: Mapping[str, str]) -> Any:
    """Credentials of `~/.aws`, which obstore does not read by itself."""
    if environment.get("AWS_ACCESS_KEY_ID"):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except Exception:  # no boto3, or no credentials in it: a role of the machine, perhaps
        return None
