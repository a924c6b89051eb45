"""What people (and a parent run) do: at any moment anything, and once all waits what is shown."""

from __future__ import annotations

import json
import shlex
from random import Random
from typing import TYPE_CHECKING, Any

from planloom.planner.contract.controls import (
    CONTROLS,
    ApprovePlan,
    ApproveTask,
    CancelTask,
    ChildAsks,
    CompleteTask,
    EditPlan,
    GrantWanted,
    Pause,
    RaiseBudget,
    RejectPlan,
    RequestReplan,
    Resume,
)
from planloom.planner.contract.names import ASK_HUMAN
from planloom.planner.contract.results import OpenWait
from planloom.planner.language.values import NANO
from planloom.planner.walk.frontier import State
from planloom.workflows.machines.run.people import questions_of
from planloom.workflows.machines.run.state import Doing, RunState
from planloom.workflows.machines.shared.account import PARENT, SECONDS_MAX
from planloom.workflows.machines.shared.commands import Refuse, Tell
from planloom.workflows.machines.shared.events import (
    Broke,
    CancelRequested,
    DeadlineMoved,
    Failure,
    GrantAsked,
    QuestionOfChild,
    SignalIgnored,
)
from tests.simulation import cases
from tests.simulation.cases import Stimulus
from tests.simulation.children import Child
from tests.simulation.kinds import run_in, waits_of
from tests.simulation.plans import Document, random_task
from tests.simulation.requests import random_budget
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

ANSWERS_MAX = 300
FITTING: list[Any] = [{"n": 1}, {"n": 2, "value": 6, "ok": True}]
ODD: list[Any] = ["yes", None, {"n": "no number"}, {"n": 1}, "long " * 700]


class People:
    """Everybody outside: those who act at any moment, and those who answer what waits."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answers = 0
        self.sent: list[int] = []
        """Stimuli that were due already."""
        self.looked = 0
        """How many there were when something was shown to wait last."""
        self.questions: list[ChildAsks] = []

    # -- at any moment ----------------------------------------------------------------------

    def stimulate(self, process: Process) -> None:
        """Send what is due after the newest event of the root."""
        for number, stimulus in enumerate(self.world.case.stimuli):
            is_due = stimulus.after == process.steps
            if stimulus.at_stage:
                is_due = number not in self.sent and _has_come(process, stimulus.at_stage)
            if is_due:
                self.sent.append(number)
                for nth in range(stimulus.times):
                    self.world.at(self.world.now, self._sending(process, stimulus, number, nth))

    def _sending(self, process: Process, stimulus: Stimulus, number: int, nth: int) -> Any:
        def send() -> None:
            if not process.is_over:
                # Sent twice it says the same twice, if the run has not moved meanwhile.
                random = self.world.random("says", stimulus.salt)
                self.world.story.append((self.world.now, "stimulus", f"{number}.{nth} {stimulus}"))
                children = [p for p in self._live() if p is not process and p.steps]
                is_to_child = stimulus.to_child and children
                target = random.choice(children) if is_to_child else process
                self._send(target, stimulus, random)

        return send

    def _send(self, process: Process, stimulus: Stimulus, random: Random) -> None:
        match stimulus.kind:
            case "unreadable":
                process.apply(SignalIgnored("approve_plan: revision: a number is needed"))
            case "cancel_run":
                process.oracle.is_cancelled = True
                process.apply(CancelRequested())
            case "terminate_child":
                self._terminate(random)
            case "stale_child":
                self._stale_child(process, random)
            case "deadline":
                if process.state.lineage.parent == "boss":
                    moved = random.choice([None, self.world.now - 1, self.world.now + 50])
                    process.apply(DeadlineMoved(moved))
            case name:
                payload = _payload(process, name, random)
                if name in ("pause", "resume"):
                    process.oracle.is_handled = True
                if payload is not None:
                    process.control(name, payload, is_update=stimulus.is_update)
                if isinstance(payload, CompleteTask) and run_in(process.state) is None:
                    # A second answer at once: to the next question.
                    again = payload.model_copy(update={"output": random.choice(ODD)})
                    process.control(name, again, is_update=stimulus.is_update)

    def _terminate(self, random: Random) -> None:
        """An operator ends a child run, or its time is over: it says no more."""
        world = self.world
        live = [p for p in self._live() if p.parent is not None]
        played = [c for c in world.children.values() if not c.is_over]
        if not live and not played:
            return
        child = random.choice([*live, *played])
        if isinstance(child, Child):
            child.lose(Failure("terminated", "unknown"))
        else:
            world.terminate(child, "TERMINATED", Failure("terminated", "unknown"))

    def _stale_child(self, process: Process, random: Random) -> None:
        """Word of a child that has ended, or never was."""
        run = run_in(process.state)
        name = random.choice([*(run.records if run is not None else ()), "nobody"])
        child = f"{process.id}/{name}"
        works = run.works if run is not None else {}
        if any(k == name or k.startswith(f"{name}[") for k in works):
            return  # one that runs speaks for itself
        if random.random() < 0.5:
            process.apply(GrantAsked(GrantWanted(child=child, name=name, tokens=5)))
        else:
            asks = ChildAsks(child=child, name="me", key=name, question=None)
            process.apply(QuestionOfChild(asks))

    # -- what waits -------------------------------------------------------------------------

    def answer(self) -> None:
        """Nothing brings the runs on but people: answer one thing that is shown as waiting."""
        self.answers += 1
        world = self.world
        if self.answers > ANSWERS_MAX:
            raise Violation("a run ends", f"{self.answers} answers and it waits still")
        if any(p.oracle.is_cancelled for p in self._live()):
            self._wait_or_complain("a cancelled run needs nobody")
            return
        for process in self._live():
            if process.state.is_paused:
                process.oracle.is_handled = True
                process.control("resume", Resume(), is_update=True)
                return
        if self._boss_acts():
            return
        for process in self._live():
            # Budget of a child is given by its parent, which shows what it lacks itself.
            waits = [w for w in waits_of(process.state, world.now) if "--name" in w.command]
            if waits:
                self.looked = self.answers
                random = world.random("answer", self.answers)
                later = _will_ask(process.state)
                if later and random.random() < 0.3:
                    early = CompleteTask(id=random.choice(later), output=random.choice(ODD))
                    process.control("complete_task", early, is_update=random.random() < 0.5)
                    return
                self._answer(process, random.choice(waits), random)
                return
        self._wait_or_complain("nothing waits for what cannot come")

    def _wait_or_complain(self, rule: str) -> None:
        """The time of the budget may be over yet, or a look at adopted children tell something."""
        if not self.world.queue or self.answers - self.looked >= 20:
            raise Violation(rule, f"stage {self.world.root.stage}: nothing can come")
        self.world.next()

    def _live(self) -> list[Process]:
        return [p for p in self.world.processes.values() if not p.is_over]

    def _answer(self, process: Process, wait: OpenWait, random: Random) -> None:
        """Type the command that is shown."""
        words = shlex.split(wait.command)
        at = {w: words[n + 1] for n, w in enumerate(words[:-1]) if w.startswith("--")}
        name, payload = at["--name"], json.loads(at["--input"])
        target = self.world.processes[at["--workflow-id"]]
        if payload.get("seconds") == SECONDS_MAX:  # there is no more to give
            target.oracle.is_cancelled = True
            target.apply(CancelRequested())
            return
        if name == "complete_task":
            payload["output"] = self._fitting(target, payload["id"], random)
        if name == "approve_plan" and random.random() < 0.15:
            name = "reject_plan"
        if name == "approve_task" and random.random() < 0.2:
            payload["approve"] = False
        read = CONTROLS[name].model_validate(payload)
        reply = target.control(name, read, is_update=random.random() < 0.7)
        if isinstance(reply, Refuse):
            raise Violation("what is shown answers the wait", f"{wait.command}: {reply.message}")

    @staticmethod
    def _fitting(process: Process, key: str, random: Random) -> Any:
        run = run_in(process.state)
        question = run.questions.get(key) if run is not None else None
        asks = run.asked.get(key) if run is not None else None
        if (question and question.schema) or (asks and asks.answer_schema):
            return random.choice(FITTING)
        return random.choice(["yes", {"value": 7, "ok": True}, "long " * 700])

    # -- the parent of a root that is a child -------------------------------------------------

    def boss(self, tell: Tell) -> None:
        """The parent hears of its child."""
        root, world = self.world.root, self.world
        if root.is_over:
            return
        if isinstance(tell.payload, GrantWanted):
            caps, wanted = root.state.account.ledger.caps, tell.payload
            raised = RaiseBudget(
                tokens=None if caps.tokens is None else caps.tokens * 2 + wanted.tokens + 1_000,
                usd=None if caps.usd_nano is None else (caps.usd_nano * 2 + 10**7) / NANO,
                tasks=None if caps.tasks is None else caps.tasks * 2 + wanted.tasks,
                by=PARENT,
            )
            if world.random("boss", root.steps).random() < 0.5:  # it is paused, and its child too
                world.at(world.now + 0.5, lambda: root.control("pause", Pause(), is_update=False))
            world.at(world.now + 1, lambda: root.receive("raise_budget", raised))
        elif isinstance(tell.payload, ChildAsks):
            self.questions = [q for q in self.questions if q.key != tell.payload.key]
            if tell.payload.question is not None:
                self.questions.append(tell.payload)

    def _boss_acts(self) -> bool:
        """Give more time when it lacks; answer what an agent below has asked."""
        root, world = self.world.root, self.world
        if root.state.lineage.parent is None:
            return False
        deadline = root.state.account.deadline
        if deadline is not None and deadline <= world.now:
            root.apply(DeadlineMoved(world.now + 1000))
            return True
        if self.questions:
            asks = self.questions.pop()
            target: Any = world.processes.get(asks.child) or world.children.get(asks.child)
            if target is not None:
                if asks.control == "approve_task":
                    target.receive(asks.control, ApproveTask(id=asks.name))
                else:
                    output = FITTING[0] if asks.answer_schema else "so"
                    target.receive(asks.control, CompleteTask(id=asks.name, output=output))
                return True
        return False


# -- what is said ---------------------------------------------------------------------------


def _payload(process: Process, name: str, random: Random) -> Any:
    by = random.choice([None, "ops"])
    match name:
        case "raise_budget":
            fields = {k: v for k, v in random_budget(random).items() if k != "on_budget"}
            return RaiseBudget(**fields, by=by)
        case "pause":
            return Pause()
        case "resume":
            return Resume()
        case "complete_task":
            known = _will_ask(process.state) if random.random() < 0.6 else []
            known = known or [*_askers(process.state) * 3, *_ids(process.state)]
            return CompleteTask(id=random.choice(known), output=random.choice(ODD), by=by)
        case "request_replan":
            return RequestReplan(feedback="otherwise", by=by)
    run = run_in(process.state)
    return _of_plan(run, process.steps, name, random, by) if run is not None else None


def _of_plan(run: RunState, number: int, name: str, random: Random, by: str | None) -> Any:
    """What only a plan takes."""
    ids = _ids(run)
    revision = run.revision + random.choice([0, 0, 0, 1, 1, -1, 7])
    match name:
        case "approve_plan":
            return ApprovePlan(revision=revision, by=by)
        case "reject_plan":
            return RejectPlan(revision=revision, by=by, reason="no")
        case "edit_plan":
            return random_edit(run, number, random)
        case "cancel_task":
            deciding = [w.unit.task for w in run.works.values() if w.doing is Doing.CONDITION]
            return CancelTask(id=random.choice([*deciding * 4, *_running(run) * 2, *ids]), by=by)
        case "approve_task":
            known = [*run.held] * 3 + [t.id for t in run.tasks.values() if t.approval] + ids
            return ApproveTask(id=random.choice(known), approve=random.random() < 0.7, by=by)
        case _:
            raise ValueError(name)


def _has_come(process: Process, moment: str) -> bool:
    """Whether the root is in this stage, or at this moment."""
    run = run_in(process.state)
    works = run.works.values() if run is not None else ()
    match moment:
        case cases.LOOKED_UP:
            return any(w.doing is Doing.CONDITION for w in works)
        case cases.FAILING:
            flights = [(w, process.flights.get(w.command)) for w in works]
            failing = [w for w, f in flights if f is not None and isinstance(f.end, Broke)]
            others = [run.tasks[w.unit.task].fallback_body for w in failing if run is not None]
            return any(o is not None and o.kind in ("agent", "team", "plan") for o in others)
        case _:
            return process.stage == moment


def _running(run: RunState) -> list[str]:
    """Tasks at work, of maps the whole."""
    return list(dict.fromkeys(w.unit.task for w in run.works.values()))


def _ids(state: Any) -> list[str]:
    run = run_in(state)
    if run is None:
        return [*state.talks, *getattr(state, "members", ()), "nobody"]
    return [*run.tasks, *(t.id for t in (run.plan.tasks if run.plan else [])), "nobody"]


def _askers(state: Any) -> list[str]:
    """Who asks a person, or is going to."""
    run = run_in(state)
    if run is None:
        return list(state.questions.open)
    later = [t.id for t in run.tasks.values() if t.human is not None]
    return [*questions_of(run), *later]


def _will_ask(state: Any) -> list[str]:
    """Who has not asked yet, as far as is known: human tasks, and agents that may ask."""
    run = run_in(state)
    if run is None:
        may_ask = [n for n, t in state.talks.items() if ASK_HUMAN in t.persona.tools]
        return [n for n in may_ask if n not in state.questions.open]
    states = run.frontier.states()
    return [t.id for t in run.tasks.values() if t.human and isinstance(states[t.id], State)]


def random_edit(run: RunState, number: int, random: Random) -> EditPlan | None:
    """Tasks added, taken out or changed; or a patch, of which some do not apply."""
    revision = run.revision + random.choice([0, 0, 0, 0, 1, -1])
    by = random.choice([None, "ops"])
    if random.random() < 0.3:
        return EditPlan(revision=revision, patch=_random_patch(random), by=by)
    if run.plan is None:
        return None
    plan: Document = run.plan.model_dump(mode="json", exclude_unset=True, by_alias=True)
    tasks: list[Document] = plan["tasks"]
    for _ in range(random.choice([1, 1, 2, 3])):
        _change(random, tasks, f"e{number}")
    if not tasks:
        return None
    try:
        return EditPlan.model_validate({"revision": revision, "plan": plan, "by": by})
    except ValueError:
        return None


def _change(random: Random, tasks: list[Document], name: str) -> None:
    names = [t["id"] for t in tasks]
    match random.choice(["add", "add", "drop", "change", "label"]):
        case "add" if f"{name}" not in names:
            tasks.append(random_task(random, name, names))
        case "drop" if tasks:
            tasks.pop(random.randrange(len(tasks)))
        case "change" if tasks:
            n = random.randrange(len(tasks))
            tasks[n] = random_task(random, tasks[n]["id"], names[:n])
        case "label" if tasks:
            random.choice(tasks)["description"] = random.choice(["now", "later"])


def _random_patch(random: Random) -> list[Document]:
    return random.choice(
        [
            [{"op": "replace", "path": "/tasks/0/description", "value": "patched"}],
            [{"op": "add", "path": "/tasks/0/description", "value": "patched"}],
            [{"op": "remove", "path": "/tasks/99"}],
            [{"op": "add", "path": "/tasks/-", "value": {"id": "new", "tool": "put"}}],
            [
                {
                    "op": "add",
                    "path": "/tasks/-",
                    "value": {"id": "new", "tool": "put", "args": {"key": "k"}},
                }
            ],
        ]
    )
