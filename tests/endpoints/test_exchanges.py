"""Every recorded exchange, as a real run. README.md says how to add one."""

from __future__ import annotations

import pytest

from tests.endpoints.crossed import crossed
from tests.endpoints.entry import Exchange, read_all
from tests.endpoints.house import House, asked_for, problems_of, story_of

EXCHANGES = [*read_all(), *crossed()]


def _param(exchange: Exchange) -> object:
    marks = [pytest.mark.xdist_group(exchange.kind)]
    if exchange.not_yet:
        marks.append(pytest.mark.xfail(strict=True, reason=exchange.not_yet))
    return pytest.param(exchange, id=f"{exchange.kind}: {exchange.name}", marks=marks)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("exchange", [_param(e) for e in EXCHANGES])
async def test_exchange(exchange: Exchange, house: House, request: pytest.FixtureRequest) -> None:
    # Those of the same file that are asked for too run side by side with it.
    house.begin([e for e in asked_for(request.session) if e.kind == exchange.kind])
    outcome = await house.outcome(exchange)
    played = house.played(exchange)
    problems = problems_of(exchange, played, outcome)
    assert not problems, "\n".join([*problems, "", story_of(played, outcome)])
