"""Goals that are answered from a script: the whole way of a goal can be tried without a key.

A goal that is not in the script is refused, with the list of those that are: nothing pretends to be
a model. The tasks of a plan are real: they run the real tools over real data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import yaml
from pydantic import Field

from planloom.planner.language.references import resolve
from planloom.planner.language.values import JsonValue, Model
from planloom.planner.prompts.joiner import JOINER
from planloom.planner.prompts.planner import CALLS
from planloom.scripted import Answer, Call, Reply, ScriptedModel

LABEL = "[scripted]"
_GOAL = re.compile(r"<goal>\n?(.*?)\n?</goal>", re.DOTALL)
_TASK = re.compile(r"^## ([A-Za-z]\w*): (\w+)$", re.MULTILINE)
_OUTPUT = re.compile(r"<output>\n?(.*?)\n?</output>", re.DOTALL)
PLANNER = CALLS.text.partition("\n")[0]
JOIN = JOINER.text.partition("\n")[0]
AGAIN = "# Why a new plan is needed"


class ScriptedGoal(Model):
    """One goal of the script; see `planner/library/scripted/goals.yaml`."""

    goal: str
    shows: str
    plans: list[str] = Field(min_length=1)
    replan: str | None = None
    asks: dict[str, str] = Field(default_factory=dict)
    answer: str

    def is_asked(self, goal: str) -> bool:
        return _plain(goal) == _plain(self.goal)


def scripted_goals() -> list[ScriptedGoal]:
    """The goals that ship with Planloom."""
    file = resources.files("planloom.planner") / "library" / "scripted" / "goals.yaml"
    rows = yaml.safe_load(file.read_text(encoding="utf-8"))
    return [ScriptedGoal.model_validate(row) for row in rows]


def scripted_model(goals: Sequence[ScriptedGoal], *, port: int = 0) -> ScriptedModel:
    """A model that plans these goals, joins them, and answers any other question with a label."""
    model = ScriptedModel(port=port)
    model.script(lambda call: call.system.startswith(PLANNER), lambda call: _plan(call, goals))
    model.script(lambda call: call.system.startswith(JOIN), lambda call: _join(call, goals))
    model.script(lambda call: True, lambda call: _ask(call, goals))
    return model


def _plan(call: Call, goals: Sequence[ScriptedGoal]) -> Answer:
    found = _goal_of(call, goals)
    if found is None:
        return _unknown(goals)
    is_again = AGAIN in call.text
    return found.plans[min(int(is_again), len(found.plans) - 1)]


def _join(call: Call, goals: Sequence[ScriptedGoal]) -> Answer:
    found = _goal_of(call, goals)
    outputs = _outputs(call.last)
    if found is None:
        told = ", ".join(outputs) or "no task"
        return _finish(f"{LABEL} nobody joined the outcomes of {told}: that needs a model.")
    may_replan = found.replan is not None and len(found.plans) > 1
    second = _names(found.plans[-1]) - _names(found.plans[0])
    if may_replan and not second & set(_shown(call.last)):
        return json.dumps({"action": "replan", "feedback": found.replan})
    try:
        return _finish(str(resolve(found.answer, outputs)))
    except Exception as error:  # a task failed, or somebody edited the plan
        return _finish(f"{LABEL} the outcomes are not those of the script: {error}")


def _ask(call: Call, goals: Sequence[ScriptedGoal]) -> Answer:
    for goal in goals:
        for part, answer in goal.asks.items():
            if part in call.text:
                return answer
    if call.body.get("response_format") or call.body.get("tools"):
        return Reply(f"{LABEL} agents, teams and answers by a schema need a model", status=400)
    return f"{LABEL} no model was asked: {' '.join(call.last.split())[:120]}"


def _goal_of(call: Call, goals: Sequence[ScriptedGoal]) -> ScriptedGoal | None:
    asked = _GOAL.search(call.text)
    return next((g for g in goals if asked and g.is_asked(asked[1])), None)


def _unknown(goals: Sequence[ScriptedGoal]) -> Reply:
    listed = "; ".join(f'"{g.goal}"' for g in goals)
    return Reply(
        f"{LABEL} this planner only knows these goals: {listed}. For others start `planloom dev` "
        "with a model (OPENAI_API_KEY, or OPENAI_BASE_URL of a local one).",
        status=400,
    )


def _finish(answer: str) -> str:
    return json.dumps({"action": "finish", "answer": answer}, ensure_ascii=False)


def _outputs(case: str) -> Mapping[str, JsonValue]:
    """The outputs that a joiner is shown, by task."""
    found: dict[str, JsonValue] = {}
    sections = _TASK.split(case)
    for name, section in zip(sections[1::3], sections[3::3], strict=True):
        if (output := _OUTPUT.search(section)) is not None:
            try:
                found[name] = json.loads(output[1])
            except ValueError:
                found[name] = output[1]
    return found


def _shown(case: str) -> list[str]:
    return [name for name, _ in _TASK.findall(case)]


def _names(plan: str) -> set[str]:
    return set(re.findall(r"^(\w+) = ", plan, re.MULTILINE))


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()
