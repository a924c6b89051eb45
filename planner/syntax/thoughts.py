"""The tags between which reasoning models think aloud. What stands between them is never a plan."""

from __future__ import annotations

import re

_NAMES = r"(?:seed:)?(?:think|thinking|thought|thoughts|reasoning|reflection|antthinking)"
OPEN_TAG = re.compile(
    rf"<{_NAMES}[ \t]*>|\[THINK\]|◁think▷|<\|(?:START_THINKING|begin_of_thought)\|>", re.IGNORECASE
)
CLOSE_TAG = re.compile(
    rf"</{_NAMES}[ \t]*>|\[/THINK\]|◁/think▷|<\|(?:END_THINKING|end_of_thought)\|>", re.IGNORECASE
)
TAG_MAX_CHARS = 24
"""No tag is longer: what is looked at again when a tag may be cut between two chunks."""
