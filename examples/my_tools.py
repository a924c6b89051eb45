"""Own tools in twenty lines: `PLANLOOM_TOOLS=my_tools planloom dev` in this folder."""

from __future__ import annotations

from planloom import ToolContext, ToolError, tool


@tool
def convert(amount: float, rate: float) -> float:
    """Convert an amount at an exchange rate.

    Args:
        amount: what to convert
        rate: how much one unit is worth
    """
    if rate <= 0:
        raise ToolError(f"rate {rate} is not positive: give the worth of one unit")
    return round(amount * rate, 2)


@tool(side_effects=True, timeout="10s")
def record(line: str, context: ToolContext) -> str:
    """Append a line to the ledger; the key makes a second attempt harmless."""
    path = context.workspace / "ledger.txt"
    text = path.read_text() if path.exists() else ""
    if context.key not in text:
        path.write_text(f"{text}{line}\t{context.key}\n")
    return f"recorded in {path.name}"
