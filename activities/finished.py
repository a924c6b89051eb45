"""What planner and joiner are told of finished tasks, also when it is too long for their job."""

from __future__ import annotations

from planloom.activities.storage.blobs import BlobStore
from planloom.planner.contract.jobs import FinishedTask, JoinJob, PlanJob


async def finished_of(blobs: BlobStore, job: JoinJob | PlanJob) -> list[FinishedTask]:
    """The job's finished tasks.

    Raises:
        BlobError: they are behind a reference that cannot be read.
    """
    if job.finished_ref is None:
        return job.finished
    documents = await blobs.load(job.finished_ref)
    assert isinstance(documents, list)
    return [FinishedTask.model_validate(d) for d in documents]
