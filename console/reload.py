"""Which files a worker was started from, and whether one of them has changed since."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


class Sources:
    """The settings file, the tool modules, and the modules beside them, below one folder.

    `changed` is asked again and again: it looks at times and sizes, and reads nothing.
    """

    def __init__(self, tools: Sequence[str], settings: Path, folder: Path | None = None) -> None:
        self._tools = list(tools)
        self._settings = settings
        self._folder = (folder or Path.cwd()).resolve()
        self._seen = self._stamps()

    def changed(self) -> list[Path]:
        """The files that changed, came or went since the last call."""
        now = self._stamps()
        names = sorted({*now, *self._seen})
        found = [path for path in names if now.get(path) != self._seen.get(path)]
        self._seen = now
        return found

    def watch(self, tools: Sequence[str]) -> None:
        """From now on these tool modules. What changed since the last `changed` is still told."""
        self._tools = list(tools)
        self._seen = {path: self._seen.get(path, at) for path, at in self._stamps().items()}

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        stamps: dict[Path, tuple[int, int]] = {}
        for path in {self._settings, *self._modules()}:
            try:
                found = path.stat()
            except OSError:
                continue
            stamps[path] = (found.st_mtime_ns, found.st_size)
        return stamps

    def _modules(self) -> Iterator[Path]:
        for name in self._tools:
            # A name may be no file's, and a folder may go while it is read: it is asked again soon.
            with contextlib.suppress(OSError):
                if (place := self._place(name)) is not None:
                    yield from place.rglob("*.py") if place.is_dir() else place.parent.glob("*.py")

    def _place(self, name: str) -> Path | None:
        """The module's file, or its package's folder, if it is below the folder."""
        path = self._folder.joinpath(*name.split("."))
        for here in (path, path.with_suffix(".py")):
            if here.exists():
                return here
        top = name.partition(".")[0]
        if top in sys.modules or not name:
            return None
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or not origin.is_relative_to(self._folder):
            return None  # installed packages do not change under a developer's hands
        return origin.parent if origin.name == "__init__.py" else origin
