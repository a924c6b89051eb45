"""The page of settings: every setting with its variable, default, sentence and a TOML example."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel

from generator.models import cell, default_of, kind_of, properties_of, sentence, with_parts
from planloom.planner.contract.settings import VARIABLES, Settings

CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = ("activities", "planner", "workflows", "console", "planloom")

ABOUT = """\
For people who run workers. A setting comes from the environment or, if it is not set there, from
`planloom.toml`. Without either, it has its default. The file is looked for in the working folder, or
where `PLANLOOM_CONFIG` says.
Keys of model endpoints are read from the environment only.

Temporal's own settings (address, namespace, API key, TLS, profiles) are read as Temporal's other
programs read them: see [Temporal's variables](#temporals-variables).
"""
OTHERS = {
    "PLANLOOM_CONFIG": "The settings file. Without it, `planloom.toml` in the working folder.",
    "PLANLOOM_TOOLS": "Modules to import tools from, separated by commas: `tools` of the file. They are looked up in the working folder first.",
    "PLANLOOM_KEY_VARIABLES": "Names of variables that may hold a model key although they do not end in `_API_KEY`, separated by commas.",
    "PLANLOOM_HTTP_ALLOW_PRIVATE": "What `http_get` may reach beyond public addresses: `0` (default), `1` for all private addresses, or networks such as `10.1.0.0/16,127.0.0.1`.",
    "PLANLOOM_HTTP_PROXY": "A proxy for `http_get`. The proxy variables of the environment are not used.",
    "PLANLOOM_LOG": "`json` writes log lines as JSON objects. Without it, text.",
    "PLANLOOM_LOG_LEVEL": "The lowest level that is logged: `DEBUG`, `INFO`, `WARNING` (default), `ERROR`.",
    "PLANLOOM_METRICS_ADDRESS": "Where the worker serves Temporal's worker metrics for Prometheus, such as `127.0.0.1:9464`. Without it, nowhere.",
    "PLANLOOM_HEALTH_ADDRESS": "Where the worker answers `/live` and `/ready`, such as `127.0.0.1:9465`. Without it, nowhere.",
    "PLANLOOM_CODEC_TOKEN": "What callers of `planloom codec-server` must send as `Authorization: Bearer …`. Required when it listens beyond this machine.",
    "PLANLOOM_DEBUG": "Any value makes the command line show tracebacks, as `--debug` does.",
}
MODEL = {
    "OPENAI_BASE_URL": "The address of the pool `default`, when the file has no pools. Without it, OpenAI's.",
    "OPENAI_API_KEY": "The key of that pool. Pools of the file name their own variable in `api_key_env`.",
}
TEMPORAL = {
    "TEMPORAL_ADDRESS": "The server, as `host:port`. Without it, `localhost:7233`.",
    "TEMPORAL_NAMESPACE": "The namespace. Without it, `default`.",
    "TEMPORAL_API_KEY": "An API key, as Temporal Cloud issues it.",
    "TEMPORAL_TLS": "Whether to use TLS. An API key turns it on.",
    "TEMPORAL_TLS_CLIENT_CERT_PATH": "The client's certificate, for mutual TLS.",
    "TEMPORAL_TLS_CLIENT_KEY_PATH": "The client's private key, for mutual TLS.",
    "TEMPORAL_TLS_SERVER_CA_CERT_PATH": "The certificate of the authority that signed the server's.",
    "TEMPORAL_PROFILE": "The profile of Temporal's configuration file. Without it, `default`.",
    "TEMPORAL_CONFIG_FILE": "That file. Without it, `temporal.toml` in Temporal's configuration folder.",
    "TEMPORAL_UI_ADDRESS": "Where the Web UI is, for links that `planloom` prints.",
}
EXAMPLES = {
    "Settings": {
        "task_queue": 'task_queue = "planloom"',
        "tools_queue": 'tools_queue = "planloom-tools"',
        "llm_queue_prefix": 'llm_queue_prefix = "models"',
        "data_dir": 'data_dir = "/var/lib/planloom"',
        "blob_url": 'blob_url = "s3://my-bucket/planloom"',
        "workspace": 'workspace = "documents"',
        "tools": 'tools = ["my_tools"]',
        "model": 'model = "gpt-4o-mini"',
        "models": 'models = {planner = "gpt-4o"}',
        "prices": 'prices = {"my-model" = {input_usd_per_million = 0.1, output_usd_per_million = 0.4}}',
        "pools": "[pools.main]",
        "retries": "[retries.timeout]",
        "tenants": "tenants = {research = 3}",
        "context_windows": 'context_windows = {"small-*" = 8192}',
        "mcp": "[mcp.time]",
        "encryption": "[encryption]",
        "max_activities": "max_activities = 200",
    },
    "PoolSettings": {
        "base_url": 'base_url = "http://localhost:8000/v1"',
        "api_key_env": 'api_key_env = "MAIN_API_KEY"',
        "models": 'models = ["llama-*"]',
        "requests_per_minute": "requests_per_minute = 600",
        "tokens_per_minute": "tokens_per_minute = 200000",
        "parallel": "parallel = 16",
        "prices": 'prices = {"my-model" = {input_usd_per_million = 0.1, output_usd_per_million = 0.4}}',
        "fallback": 'fallback = "spare"',
        "penalty": 'penalty = "enhanced"',
        "penalty_seconds": "penalty_seconds = 1.0",
        "predictive": "predictive = true",
        "on_broken": 'on_broken = "wait"',
        "max_requests": "max_requests = 32",
        "max_calls": "max_calls = 16",
        "max_runs": "max_runs = 8",
        "timeout_seconds": "timeout_seconds = 600",
        "headers": 'headers = {"X-Route" = "batch"}',
        "headers_env": 'headers_env = {"api-key" = "AZURE_API_KEY"}',
        "query": 'query = {"api-version" = "2024-10-21"}',
        "extra_body": "extra_body = {seed = 7}",
        "accepts": '[pools.main.accepts."qwen*"]',
    },
    "Accepts": {
        "without": 'without = ["temperature"]',
        "response_format": 'response_format = "json_object"',
        "limit": 'limit = "max_completion_tokens"',
        "max_tokens": "max_tokens = 8192",
    },
    "Price": {
        "input_usd_per_million": "input_usd_per_million = 0.1",
        "output_usd_per_million": "output_usd_per_million = 0.4",
    },
    "Encryption": {
        "active": 'active = "2026-11"',
        "keys": '[encryption.keys."2026-11"]',
    },
    "EncryptionKey": {
        "file": 'file = "/etc/planloom/2026-11.key"',
        "command": 'command = ["vault", "read", "-field=key", "secret/planloom"]',
    },
    "McpSettings": {
        "command": 'command = "uvx"',
        "args": 'args = ["mcp-server-time"]',
        "env": 'env = {TZ = "Europe/Oslo"}',
        "env_from": 'env_from = ["TIME_SERVER_TOKEN"]',
        "url": 'url = "http://localhost:8900/mcp"',
        "headers": 'headers = {"X-Team" = "research"}',
        "headers_env": 'headers_env = {"Authorization" = "TIME_SERVER_API_KEY"}',
        "tools": 'tools = ["get_*"]',
        "prefix": 'prefix = "time_"',
        "timeout": "timeout = 60",
        "start_timeout": "start_timeout = 30",
        "trust_hints": "trust_hints = true",
        "read_only": 'read_only = ["get_*"]',
        "idempotent": 'idempotent = ["convert_*"]',
    },
    "RetryOverride": {
        "retryable": "retryable = true",
        "attempts_max": "attempts_max = 3",
        "waits_max": "waits_max = 10",
        "initial_seconds": "initial_seconds = 1.0",
        "backoff": "backoff = 2.0",
        "max_seconds": "max_seconds = 30.0",
        "counts_as_penalty": "counts_as_penalty = true",
        "dag_retry": "dag_retry = true",
    },
}
TABLES = {
    "Settings": "",
    "PoolSettings": "[pools.main]",
    "Accepts": '[pools.main.accepts."qwen*"]',
    "Price": '[pools.main.prices."my-model"]',
    "McpSettings": "[mcp.time]",
    "Encryption": "[encryption]",
    "EncryptionKey": '[encryption.keys."2026-11"]',
    "RetryOverride": "[retries.timeout]",
}


def settings_page() -> str:
    """The page; every example in it has been read as settings.

    Raises:
        ValueError: a setting without a sentence or example, or a variable that is not on the page.
    """
    shown = with_parts([Settings])
    parts = [
        f"# Settings\n\n{ABOUT}",
        "\n## Example\n\n```toml\n# planloom.toml\n",
        example(),
        "```\n",
    ]
    parts += [_section(shown[name], shown) for name in TABLES]
    parts += [
        _variables("Variables without an entry in the file", OTHERS),
        _variables("The model's variables", MODEL),
        _variables("Temporal's variables", TEMPORAL),
    ]
    page = "".join(parts)
    if absent := [name for name in variables_in_the_code() if f"`{name}`" not in page]:
        raise ValueError(f"not on the page of settings: {', '.join(absent)}")
    return page


def example() -> str:
    """Every setting once, as one file that can be read."""
    lines = []
    for model, settings in EXAMPLES.items():
        # A table of its own follows for these.
        apart = ["pools", "retries", "accepts", "encryption", "keys", "mcp"]
        apart += {
            "PoolSettings": ["prices"],
            "EncryptionKey": ["command"],
            "McpSettings": ["url", "headers", "headers_env"],
        }.get(model, [])
        lines += ["", TABLES[model], *(t for name, t in settings.items() if name not in apart)]
    text = re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip() + "\n"
    text += '\n[pools.spare]\nbase_url = "http://localhost:8001/v1"\n'
    Settings.model_validate(tomllib.loads(text))
    return text


def variables_in_the_code() -> list[str]:
    sources = [path for room in ROOMS for path in (CHECKOUT / room).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in [*sources, CHECKOUT / "worker.py"]]
    return sorted({name for text in texts for name in re.findall(r"\bPLANLOOM_[A-Z_]+\b", text)})


def _section(model: type[BaseModel], shown: dict[str, type[BaseModel]]) -> str:
    properties, required = properties_of(model)
    examples = EXAMPLES[model.__name__]
    if absent := set(properties) - set(examples):
        raise ValueError(f"{model.__name__}: no example of {', '.join(sorted(absent))}")
    by_field = {field: variable for variable, field in VARIABLES.items()}
    by_field["tools"] = "PLANLOOM_TOOLS"
    table = TABLES[model.__name__]
    is_top = model is Settings
    head = f"\n## `{table}`\n" if table else "\n## Top level\n"
    head += f"\n{cell(model.__doc__ or '')}\n\n| setting | "
    head += "variable | " * is_top + "type | default | meaning | example |\n|---|"
    rows = [
        f"| `{name}` | "
        + (f"{f'`{by_field[name]}`' if name in by_field else ''} | " if is_top else "")
        + f"{_linked(kind_of(field, shown))} | "
        + f"{'required' if name in required else default_of(field)} | "
        + f"{sentence(model, name, field)} | `{examples[name]}` |\n"
        for name, field in properties.items()
    ]
    return head + "---|" * (5 if is_top else 4) + "\n" + "".join(rows)


def _linked(kind: str) -> str:
    """Links of models lead to the tables' own headings."""
    for name, table in TABLES.items():
        anchor = re.sub(r"[^\w\- ]", "", table.replace(".", "")).strip().lower()
        kind = kind.replace(f"[{name}](#{name.lower()})", f"[table](#{anchor})")
    return kind


def _variables(title: str, named: dict[str, str]) -> str:
    rows = "".join(f"| `{name}` | {cell(text)} |\n" for name, text in named.items())
    return f"\n## {title}\n\n| variable | meaning |\n|---|---|\n{rows}"
