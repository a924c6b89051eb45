"""What a model call costs, in nano-dollars: from `planloom.toml`, else from genai-prices' data.

The data are part of the installed package: nothing here uses the network.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

import genai_prices

from planloom.planner.contract.settings import Price, Settings
from planloom.planner.language.values import NANO, Usage

_PROBE_TOKENS = 1_000


class Prices:
    """Prices by model and pool. A model of unknown price is unpriced, never free."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def per_token_nano(self, model: str, pool: str = "default") -> tuple[int, int] | None:
        """(input, output) nano-dollars per token, each rounded up; None when unknown."""
        exact = self._exact(model, pool)
        return None if exact is None else (math.ceil(exact[0]), math.ceil(exact[1]))

    def charge(self, model: str, pool: str, usage: Usage) -> Usage:
        """The same usage with its price: `usd_nano` rounded up once, `is_priced` false if unknown.

        Cached input is charged at the full input price under an override, which has no other,
        and at its own price when the price list knows one.
        """
        cost = self._cost(model, pool, usage)
        return usage.model_copy(
            update={"usd_nano": math.ceil(cost or 0), "is_priced": cost is not None}
        )

    def _cost(self, model: str, pool: str, usage: Usage) -> Fraction | None:
        if (price := self._override(model, pool)) is not None:
            input_nano, output_nano = _per_token(price)
            return usage.input_tokens * input_nano + usage.output_tokens * output_nano
        total = _listed(
            model,
            self._base_url(pool),
            usage.input_tokens,
            usage.output_tokens,
            min(usage.cached_tokens, usage.input_tokens),
        )
        return None if total is None else (total[0] + total[1]) * NANO

    def _exact(self, model: str, pool: str) -> tuple[Fraction, Fraction] | None:
        if (price := self._override(model, pool)) is not None:
            return _per_token(price)
        listed = _listed(model, self._base_url(pool), _PROBE_TOKENS, _PROBE_TOKENS, 0)
        if listed is None:
            return None
        return listed[0] * NANO / _PROBE_TOKENS, listed[1] * NANO / _PROBE_TOKENS

    def _override(self, model: str, pool: str) -> Price | None:
        settings = self._settings.pools.get(pool)
        for table in (settings.prices if settings else {}, self._settings.prices):
            if (price := table.get(model) or table.get("*")) is not None:
                return price
        return None

    def _base_url(self, pool: str) -> str | None:
        settings = self._settings.pools.get(pool)
        return settings.base_url if settings else None


def _per_token(price: Price) -> tuple[Fraction, Fraction]:
    # Through text: 0.15 as a float is a little more than 0.15, and would round up to 151.
    input_nano = Fraction(str(price.input_usd_per_million)) * NANO / 1_000_000
    output_nano = Fraction(str(price.output_usd_per_million)) * NANO / 1_000_000
    return input_nano, output_nano


@lru_cache(maxsize=4096)
def _listed(
    model: str, base_url: str | None, input_tokens: int, output_tokens: int, cached: int
) -> tuple[Fraction, Fraction] | None:
    """Dollars for input and output by the price list; None for a model it does not know."""
    usage = genai_prices.Usage(
        input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached or None
    )
    # A gateway or test server in front has an address the list does not know: then the name alone.
    for url in (base_url, None) if base_url else (None,):
        try:
            price = genai_prices.calc_price(usage, model, provider_api_url=url)
        except (LookupError, ValueError):
            continue
        return _fraction(price.input_price), _fraction(price.output_price)
    return None


def _fraction(amount: Decimal | None) -> Fraction:
    return Fraction(amount) if amount is not None else Fraction(0)
