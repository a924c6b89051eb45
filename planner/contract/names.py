"""Names of the public contract: a caller's errors, an agent's own tools, the search attributes."""

from __future__ import annotations

# Error types of application failures that a caller caused.
INVALID_REQUEST = "InvalidRequest"
INVALID_PLAN = "InvalidPlan"
UNKNOWN_TOOL = "UnknownTool"
BUDGET_EXCEEDED = "BudgetExceeded"
PLAN_REJECTED = "PlanRejected"
STALE = "Stale"
"""An update that came too late: a revision that was replaced, a task that has ended."""

ASK_HUMAN = "ask_human"
READ_OUTPUT = "read_output"
"""Tools that only agents and team members have; no tool module registers them."""

ENCRYPTED_ENCODING = b"binary/encrypted"
ENCRYPTION_KEY_ID = "encryption-key-id"
"""How an encrypted payload says what it is, and which key opens it; as in Temporal's samples."""

SEARCH_ATTRIBUTES = {
    "PlanloomStatus": "Keyword",
    "PlanloomRevision": "Int",
    "PlanloomAwaiting": "KeywordList",
    "PlanloomTenant": "Keyword",
}
