"""Encryption: keys by id, from files or commands, and bytes sealed with them by AES-GCM."""

from __future__ import annotations

import base64
import binascii
import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from planloom.planner.contract.settings import (
    KEY_ID_MAX_CHARS,
    EncryptionKey,
    Settings,
    SettingsError,
)
from planloom.planner.language.values import Problem

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
COMMAND_SECONDS = 30.0
SOURCE_MAX_BYTES = 4096
"""Of a key as a file or a command gives it. The rest of a longer one is not read."""
MAGIC = b"PLE1"
"""The first bytes of a sealed value: they tell it from a value that was written without a key."""
OVERHEAD_BYTES = len(MAGIC) + KEY_ID_MAX_CHARS + NONCE_BYTES + TAG_BYTES


class NoKey(Exception):
    """Something was encrypted with a key that is not here."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(
            f'it is encrypted with the key "{id[:KEY_ID_MAX_CHARS]}", and there is no such key in '
            "[encryption.keys] here"
        )


class NotGenuine(Exception):
    """Something was changed after it was encrypted, or the key of that id is another one."""

    def __init__(self, id: str) -> None:
        super().__init__(f'it is damaged, or the key "{id}" is not the one it was encrypted with')


class KeyRing:
    """The keys of one process. The active one encrypts; all of them decrypt."""

    def __init__(self, active: str, keys: Mapping[str, bytes]) -> None:
        self.active = active
        self._ciphers = {id: AESGCM(key) for id, key in keys.items()}

    def encrypt(self, content: bytes, about: bytes | None = None) -> bytes:
        """Nonce, text and tag, by the active key. `about` is not kept, and checked later."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self.active].encrypt(nonce, content, about)

    def decrypt(self, id: str, content: bytes, about: bytes | None = None) -> bytes:
        """What `encrypt` was given.

        Raises:
            NoKey: there is no key of that id.
            NotGenuine: the content, or `about`, is not what was encrypted.
        """
        cipher = self._ciphers.get(id)
        if cipher is None:
            raise NoKey(id)
        try:
            return cipher.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], about)
        except (InvalidTag, ValueError):  # ValueError: it is shorter than a nonce
            raise NotGenuine(id) from None

    @property
    def overhead_bytes(self) -> int:
        """How much longer a sealed value is than its content."""
        return OVERHEAD_BYTES

    def seal(self, content: bytes, name: str) -> bytes:
        """A value as it is stored under `name`: which key, then what `encrypt` made of it."""
        return self.sealed_now + self.encrypt(content, name.encode())

    @property
    def sealed_now(self) -> bytes:
        """The first bytes of what the active key seals."""
        return MAGIC + self.active.encode().ljust(KEY_ID_MAX_CHARS)

    def unseal(self, content: bytes, name: str) -> bytes:
        """The value that was stored under `name`; one written before there were keys as it is.

        Raises:
            NoKey, NotGenuine: as `decrypt`; a value that was moved to another name is not genuine.
        """
        if not content.startswith(MAGIC):
            return content
        end = len(MAGIC) + KEY_ID_MAX_CHARS
        id = content[len(MAGIC) : end].decode("ascii", "replace").rstrip(" ")
        return self.decrypt(id, content[end:], name.encode())


def key_ring(settings: Settings) -> KeyRing | None:
    """The keys that the settings name, read now; None without `[encryption]`.

    Raises:
        SettingsError: with every key that cannot be read.
    """
    encryption = settings.encryption
    if encryption is None:
        return None
    keys: dict[str, bytes] = {}
    problems: list[Problem] = []
    for id, source in encryption.keys.items():
        try:
            keys[id] = _key_of(_read(source))
        except _Unusable as error:
            path = f"planloom.toml: encryption.keys.{id}"
            hint = _HINT if error.is_shape else ""
            problems.append(Problem(path=path, code="no_key", message=str(error), hint=hint))
    if problems:
        raise SettingsError(problems)
    return KeyRing(encryption.active, keys)


_HINT = "Make one with: openssl rand -base64 32"


class _Unusable(Exception):
    def __init__(self, message: str, *, is_shape: bool = False) -> None:
        self.is_shape = is_shape
        super().__init__(message)


def _read(source: EncryptionKey) -> bytes:
    if source.file is not None:
        try:
            with Path(source.file).expanduser().open("rb") as file:
                return file.read(SOURCE_MAX_BYTES + 1)
        except OSError as error:
            raise _Unusable(f"{source.file} cannot be read: {error.strerror or error}") from None
    assert source.command is not None
    return _printed(source.command)


def _printed(command: Sequence[str]) -> bytes:
    """What a command prints, as far as a key may be long.

    Raises:
        _Unusable: it cannot be started, fails, prints more, or does not end.
    """
    name = command[0]
    try:
        # In the same session: it may ask a person at the terminal.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise _Unusable(f"{name} cannot be started: {error.strerror or error}") from None
    ends = time.monotonic() + COMMAND_SECONDS
    try:
        printed, complaint = _heard(process, ends)
        code = process.wait(max(0.0, ends - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise _Unusable(f"{name} has not ended after {COMMAND_SECONDS:.0f} s") from None
    finally:
        process.kill()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        process.wait()
    if code:
        # Only its complaint: what it printed may be the key.
        said = complaint.decode(errors="replace").strip()[:200]
        raise _Unusable(f"{name} ended with exit code {code}: {said}")
    return printed


def _heard(process: subprocess.Popen[bytes], ends: float) -> tuple[bytes, bytes]:
    """What it writes to its output and of its complaints, until both are closed; the rest of a long
    one is thrown away. A program that it has started may keep them open.

    Raises:
        TimeoutError: they are open still.
        _Unusable: it prints more than a key has.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    heard = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as ready:
        for pipe in heard:
            ready.register(pipe, selectors.EVENT_READ)
        while ready.get_map():
            if (left := ends - time.monotonic()) <= 0 or not (found := ready.select(left)):
                raise TimeoutError
            for key, _ in found:
                pipe = process.stdout if key.fileobj is process.stdout else process.stderr
                if not (piece := os.read(pipe.fileno(), 4096)):
                    ready.unregister(pipe)
                heard[pipe] = (heard[pipe] + piece)[: SOURCE_MAX_BYTES + 1]
            if len(heard[process.stdout]) > SOURCE_MAX_BYTES:
                name = str(process.args[0]) if isinstance(process.args, list) else "it"
                raise _Unusable(f"{name} prints more than {SOURCE_MAX_BYTES:,} bytes")
    return heard[process.stdout], heard[process.stderr]


def _key_of(content: bytes) -> bytes:
    """32 bytes: as they are, in base64, or as 64 hexadecimal digits."""
    if len(content) > SOURCE_MAX_BYTES:
        raise _Unusable(f"it is longer than {SOURCE_MAX_BYTES:,} bytes", is_shape=True)
    if len(content) == KEY_BYTES:
        return content
    text = content.strip()
    for decode in (binascii.unhexlify, _from_base64):
        try:
            if len(key := decode(text)) == KEY_BYTES:
                return key
        except ValueError:
            continue
    raise _Unusable(
        f"it gives {len(content)} bytes; a key is {KEY_BYTES}: raw, in base64 or in hexadecimal",
        is_shape=True,
    )


def _from_base64(text: bytes) -> bytes:
    return base64.b64decode(text.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
