"""Names of the public contract: the types of a caller's errors, and the search attributes."""

from __future__ import annotations

# Error types of application failures that a caller caused.
INVALID_REQUEST = "InvalidRequest"
INVALID_PLAN = "InvalidPlan"
UNKNOWN_TOOL = "UnknownTool"
BUDGET_EXCEEDED = "BudgetExceeded"
PLAN_REJECTED = "PlanRejected"
STALE = "Stale"
"""An update that came too late: a revision that was replaced, a task that has ended."""

SEARCH_ATTRIBUTES = {
    "PlanloomStatus": "Keyword",
    "PlanloomRevision": "Int",
    "PlanloomAwaiting": "KeywordList",
    "PlanloomTenant": "Keyword",
}
