"""Something that must hold did not."""

from __future__ import annotations


class Violation(AssertionError):
    """`rule` is the sentence that was not true."""

    def __init__(self, rule: str, *what: object) -> None:
        self.rule = rule
        super().__init__(": ".join([rule, *map(str, what)]))


def demand(holds: object, rule: str, *what: object) -> None:
    """Raises:
    Violation: it does not hold; `what` tells more, and costs nothing while all is well.
    """
    if not holds:
        raise Violation(rule, *what)
