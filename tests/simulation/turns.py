"""One turn of an agent's model: the tools that it calls, or its answer."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from planloom.planner.contract.jobs import AgentCall, TurnJob, TurnReply
from planloom.planner.contract.names import ASK_HUMAN, READ_OUTPUT
from planloom.planner.language.values import JsonValue, Stored, Usage

if TYPE_CHECKING:
    from tests.simulation.process import Process


def random_turn(process: Process, job: TurnJob, usage: Usage, random: Random) -> TurnReply:
    """Calls while it may call, then an answer: as it should be, or with problems."""
    transcript = Stored(blob=f"talk-{job.name}", size_bytes=30_000, preview="[")
    if not job.is_last and random.random() < (0.5 if job.tools else 0.1):
        calls = [_call(job, random, n) for n in range(random.choice([1, 1, 2, 3, 20]))]
        return TurnReply(transcript=transcript, calls=calls, usage=usage)
    claim = random.choice(["yes", "no", "it depends"])
    problems = ["it is no JSON"] if random.random() < 0.2 else []
    text: JsonValue = claim if random.random() < 0.8 else ""
    long = Stored(blob=f"text-{job.name}", size_bytes=30_000, preview="long")
    process.world.blobs.setdefault(f"text-{job.name}", "long " * 6_000)
    value = Stored(value={"n": 1}) if job.output_schema is not None and not problems else None
    return TurnReply(
        transcript=transcript,
        text=long if random.random() < 0.15 else Stored(value=text),
        value=value,
        fields={"CLAIM": claim, "SUMMARY": f"{job.name} says {claim}"},
        confidence=random.choice([None, 0.2, 0.9]),
        evidence=random.choice([0, 2]),
        contradictions=random.choice([0, 0, 1]),
        problems=problems,
        usage=usage,
    )


def _call(job: TurnJob, random: Random, number: int) -> AgentCall:
    name = random.choice([*job.tools, *job.tools, "unheard"])
    args: dict[str, JsonValue] = {"key": random.randrange(3)}
    if name == ASK_HUMAN:
        args = {"question": random.choice(["which?", "${q}"])}
    elif name == READ_OUTPUT:
        args = {"id": random.choice([*job.inputs, "task", "context", "nothing"])}
    return AgentCall(
        id=random.choice(["c", "c.1", f"c{number}", ""]),
        name=name,
        args=args,
        inputs={"q": Stored(value="what, at length?")} if "question" in args else {},
        fingerprint=f"{name}{args}",
        problem="no JSON" if random.random() < 0.05 else None,
    )
