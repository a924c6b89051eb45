"""Logs to stderr, each line with its run, task and revision: text, or JSON lines.

Run and task come from Temporal's own context; the revision from the job an activity was given, so
that a tool that logs with nothing but `logging` is found again in the run it belongs to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from temporalio import activity, workflow
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from planloom.planner.language.clean_text import clean_text, in_its_order
from planloom.visible import visible

FIELDS = ("run", "task", "revision")
CONTINUED = "\n    "
"""Between two lines of one message."""

_job: ContextVar[Any] = ContextVar("planloom_job", default=None)
"""The job of the activity that this context carries out."""


def task_of(info: activity.Info, job: object) -> str:
    """What people call this activity: its id, which a local activity has only from its job.

    In the activity of a group it is the task whose call goes on.
    """
    named = getattr(job, "task", None)
    has_own = not info.is_local and info.activity_type != "run_group"
    return named if not has_own and isinstance(named, str) else info.activity_id


def log_as(job: object) -> None:
    """From now on lines of this context are those of another job."""
    _job.set(job)


class JobInterceptor(Interceptor):
    """Keeps the job where log lines can see it."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _JobInbound(next)


class _JobInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        # Not taken back: the SDK's own line about a failure comes after this, in this context.
        _job.set(input.args[0] if input.args else None)
        return await super().execute_activity(input)


class Fields(logging.Filter):
    """Adds `run`, `task` and `revision` to every record; empty where there is none. The end of a
    cancelled activity is told in one line, at INFO."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            # What somebody cancelled is no failure; where it stood is of no use to anybody.
            record.exc_info, record.msg, record.args = None, "cancelled", ()
            record.levelno, record.levelname = logging.INFO, "INFO"
            if not logging.getLogger().isEnabledFor(logging.INFO):
                return False
        run, task, revision = "", "", 0
        if activity.in_activity():
            info, job = activity.info(), _job.get()
            run, task = info.workflow_id or "", task_of(info, job)
            revision = getattr(job, "revision", 0)
        elif isinstance(fields := getattr(record, "temporal_workflow", None), Mapping):
            run = str(fields.get("workflow_id", ""))
        record.run, record.task, record.revision = run, task, revision
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line; fields without a value are left out. Times are UTC."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name in FIELDS if (value := getattr(record, name, None))}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return visible(clean_text(json.dumps(fields, ensure_ascii=False)))


class TextLines(logging.Formatter):
    """`time LEVEL logger run/task revision 2: message`, without what is not known.

    A message may quote a task: no terminal obeys it, and a line of it does not begin like another.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(where)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        run, task, revision = (getattr(record, name, "") for name in FIELDS)
        where = "/".join(part for part in (run, task) if part)
        record.where = (f" {where}" if where else "") + (f" revision {revision}" * bool(revision))
        text = in_its_order(visible(clean_text(super().format(record))))
        return text.replace("\n", CONTINUED)


def setup_logging(environment: Mapping[str, str]) -> None:
    """Logs to stderr: text, or JSON with `PLANLOOM_LOG=json`; from `PLANLOOM_LOG_LEVEL` up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Fields())
    handler.setFormatter(JsonLines() if environment.get("PLANLOOM_LOG") == "json" else TextLines())
    level = environment.get("PLANLOOM_LOG_LEVEL", "WARNING").upper()
    is_level = level in logging.getLevelNamesMapping()
    logging.basicConfig(level=level if is_level else "WARNING", handlers=[handler], force=True)
    # Both say in each message what the fields say already.
    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False
    if not is_level:
        logging.getLogger("planloom.worker").warning(
            'PLANLOOM_LOG_LEVEL: no level "%s"; DEBUG, INFO, WARNING, ERROR. Using WARNING.', level
        )
