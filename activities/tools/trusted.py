"""The places that this worker process trusts: its settings, data, definitions and loaded code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import platformdirs

from planloom import planner
from planloom.activities.tools.closed import Trusted
from planloom.activities.tools.commands import MANIFESTS, started_by
from planloom.planner.contract.settings import Settings

FILE_VARIABLES = (
    "PLANLOOM_CONFIG",
    "TEMPORAL_CONFIG_FILE",
    "TEMPORAL_TLS_CLIENT_CERT_PATH",
    "TEMPORAL_TLS_CLIENT_KEY_PATH",
    "TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    *(
        f"OTEL_EXPORTER_OTLP_{signal}_{file}"
        for signal in ("TRACES", "METRICS", "LOGS")
        for file in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    ),
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "OPENSSL_CONF",
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
    *("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"),
    *("KUBECONFIG", "NETRC", "PGPASSFILE", "DOCKER_CONFIG"),
)
"""Variables that name a file which this worker, or a library or a program of its user, reads as
settings or as a key: it may lie in the workspace under any name."""
SYSTEM = ("/proc", "/sys", "/dev")
"""Where a process sees itself: a workspace `/` holds the worker's environment, with its keys."""
DATA_PARTS = (
    *("blobs", "locks", "tool_times.json"),
    *("temporal.db", "temporal.db-wal", "temporal.db-shm", "temporal-server.log"),
)
"""What is closed of a data folder that is the workspace itself, or holds it."""


def trusted_places(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    modules: Mapping[str, ModuleType] | None = None,
    import_path: Sequence[str] | None = None,
) -> Trusted:
    """What this process trusts now; call it when tool modules are loaded."""
    workspace = Path(settings.workspace).resolve()
    program = _program()
    files, packages = _code(dict(sys.modules) if modules is None else modules, workspace, program)
    started = started_by(settings)
    data = Path(settings.data_dir or ".")
    named = [environment[name] for name in FILE_VARIABLES if environment.get(name)]
    closed = [
        Path("planloom.toml"),
        *(Path(name) for name in named),
        data,
        *(data / part for part in DATA_PARTS),
        *(
            [Path(settings.blob_url)]
            if settings.blob_url and "://" not in settings.blob_url
            else []
        ),
        *_key_files(settings),
        *started.files,
        Path(platformdirs.user_config_dir("planloom")),
        *map(Path, SYSTEM),
        Path(sys.prefix),
        *files,
    ]
    searched = _real(
        Path(folder or ".") for folder in (sys.path if import_path is None else import_path)
    )
    # Whoever starts the worker from here (`uv run`, `make dev`) runs what these files say.
    own = [Path(name) for name in MANIFESTS] if Path.cwd().resolve() in searched else []
    return Trusted(
        closed=_real(closed),
        packages=_real(packages),
        fixed=_real([*program, *own, *started.manifests]),
        import_path=searched,
        script_folders=_real(started.folders),
    )


def _key_files(settings: Settings) -> list[Path]:
    sources = settings.encryption.keys.values() if settings.encryption else []
    return [Path(source.file) for source in sources if source.file is not None]


def _program() -> list[Path]:
    """Planloom's package, and what its links lead to in a checkout."""
    top = Path(planner.__file__).parent.parent
    return [top, *top.iterdir(), *(top / "console").iterdir()]


def _code(
    modules: Mapping[str, ModuleType], workspace: Path, program: Sequence[Path]
) -> tuple[list[Path], list[Path]]:
    """Files of loaded modules in the workspace, and folders of loaded packages there."""
    own = [path.resolve() for path in program]
    real_folders: dict[str, str] = {}

    def is_foreign(path: str) -> bool:
        real = Path(_real_path(path, real_folders))
        return real.is_relative_to(workspace) and not any(real.is_relative_to(p) for p in own)

    files: list[Path] = []
    packages: list[Path] = []
    for module in list(modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and is_foreign(file):
            files.append(Path(file))
        packages += [Path(folder) for folder in _folders(module) if is_foreign(folder)]
    return files, packages


def _folders(module: ModuleType) -> Iterable[str]:
    try:
        return [str(folder) for folder in getattr(module, "__path__", ())]
    except Exception:  # a module may be anything; one that cannot be asked is in no folder
        return []


def _real_path(path: str, real_folders: dict[str, str]) -> str:
    """Where a path leads. Thousands of modules lie in a few hundred folders, resolved once each."""
    folder, name = os.path.split(path)
    if folder not in real_folders:
        real_folders[folder] = os.path.realpath(folder)
    joined = os.path.join(real_folders[folder], name)
    is_plain = name not in ("", ".", "..") and not os.path.islink(joined)
    return joined if is_plain else os.path.realpath(path)


def _real(paths: Iterable[Path]) -> tuple[Path, ...]:
    found: dict[Path, None] = {}
    for path in paths:
        try:
            found[Path(os.path.realpath(path.expanduser()))] = None
        except (OSError, ValueError, RuntimeError):
            continue  # no such place can be reached by a tool either
    return tuple(found)
