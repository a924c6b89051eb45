"""What planner and joiner read of finished tasks: inline, or from a blob when it is long."""

from __future__ import annotations

from planloom.activities.storage.blobs import BlobStore
from planloom.planner.contract.jobs import FinishedTask, JoinJob, PlanJob


async def load_finished_tasks(blobs: BlobStore, job: JoinJob | PlanJob) -> list[FinishedTask]:
    """The job's finished tasks.

    Raises:
        BlobError: they are behind a reference that cannot be read.
    """
    if job.finished_ref is None:
        return job.finished
    documents = await blobs.load(job.finished_ref)
    assert isinstance(documents, list)
    return [FinishedTask.model_validate(d) for d in documents]
