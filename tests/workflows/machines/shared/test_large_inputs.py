"""Large outputs in a context go to the child under their own names."""

from __future__ import annotations

from planloom.planner.language.values import Stored
from planloom.workflows.machines.shared.large_inputs import split_context

LARGE = Stored(blob="b", size_bytes=40_000, preview="…")
VALUES = {"look": LARGE, "v1.2": LARGE, "task": LARGE, "small": Stored(value="s")}


def test_a_large_output_is_named_in_the_text_and_travels_as_an_input() -> None:
    text = '# Result of look\n${look}\n\n# Result of v1.2\n${"v1.2"}\n\n# Result of small\n${small}'
    context, inputs = split_context(text, VALUES.get)
    assert inputs == {"look": LARGE, "v1.2": LARGE}
    assert context == (
        "# Result of look\n(see input look)\n\n# Result of v1.2\n(see input v1.2)\n\n"
        "# Result of small\n${small}"
    )


def test_a_context_that_is_one_reference_and_a_part_of_a_value_stay() -> None:
    assert split_context("${look}", VALUES.get) == ("${look}", {})
    assert split_context("its ${look.name}", VALUES.get) == ("its ${look.name}", {})
    assert split_context({"a": "${look}"}, VALUES.get) == ({"a": "${look}"}, {})


def test_text_that_only_looks_like_a_reference_stays_as_it_is() -> None:
    context, _ = split_context("write $${look} for: ${look}", VALUES.get)
    assert context == "write $${look} for: (see input look)"


def test_a_task_called_like_an_input_of_the_child_gets_another_name() -> None:
    context, inputs = split_context("see: ${task}", VALUES.get)
    assert (context, list(inputs)) == ("see: (see input task-output)", ["task-output"])
