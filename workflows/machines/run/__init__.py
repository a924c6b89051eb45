"""The machine of a run: plan, approve, execute, join, replan, answer."""
