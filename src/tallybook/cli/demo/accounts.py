"""The demo's own arithmetic: what each answer must say, from the plans and the published prices alone.

Nothing here asks Tallybook what it did; the numbers meet for the first time when an answer is compared.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from tallybook.cli.demo import cast
from tallybook.cli.demo.cast import Customer
from tallybook.cli.demo.traffic import Event, Tokens
from tallybook.core import money

EXHAUSTED = {"metered": "included_limit_reached", "credits": "insufficient_credits", "balance": "insufficient_balance"}
_PERCENT = 100


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What a model costs, pico-USD per token."""

    input: int
    output: int
    cache_read: int
    cache_write: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What must become of an event: taken or not, what it takes, and what is left (1e-9 of the pool's unit)."""

    is_taken: bool
    charge: int = 0
    left: int = 0


@dataclass(slots=True)
class ModelTotals:
    """What was charged for one AI model. Nano-USD."""

    events: int = 0
    uncached: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    cost: int = 0
    charge: int = 0


@dataclass(slots=True)
class Account:
    """A customer's month as it must be: what it was granted, bought, used and was refused. 1e-9 of the pool's unit."""

    customer: Customer
    prices: Mapping[str, ModelPrice]
    bought: int = 0
    charged: int = 0
    events: int = 0
    used: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    spent: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    models: dict[str, ModelTotals] = field(default_factory=lambda: defaultdict[str, ModelTotals](ModelTotals))
    refused: Counter[str] = field(default_factory=Counter[str])

    @property
    def granted(self) -> int:
        """The month's credits or balance."""
        scale = money.NANO if self.customer.plan.model == "credits" else money.NANO_PER_RATE
        return self.customer.plan.grant * scale

    @property
    def left(self) -> int:
        """What is left of the month's credits or balance and of what was bought."""
        return self.granted + self.bought - self.charged

    @property
    def taken(self) -> int:
        """What all events took from the pools."""
        return sum(self.used.values()) if self.customer.plan.model == "metered" else self.charged

    def count(self, event: Event) -> Verdict:
        """Decide about an event that was never taken before, and book it if it must be taken."""
        plan = self.customer.plan
        if plan.model == "metered":
            return self._count_units(event)
        charge, cost = self._credits(event) if plan.model == "credits" else self._money(event)
        if charge > self.left and (plan.model == "credits" or plan.blocks):
            self.refused[EXHAUSTED[plan.model]] += 1
            return Verdict(is_taken=False)
        self.charged += charge
        self.spent[event.feature] += charge
        self._note(event)
        if event.tokens is not None:
            self._note_model(event.tokens, charge, cost)
        return Verdict(is_taken=True, charge=charge, left=self.left)

    def overage_nano(self, feature: str) -> int:
        """Units of a metered feature beyond what is included."""
        return max(0, self.used[feature] - self.customer.plan.offer(feature).included * money.NANO)

    def _count_units(self, event: Event) -> Verdict:
        plan = self.customer.plan
        included = plan.offer(event.feature).included * money.NANO
        if plan.is_free and self.used[event.feature] + event.quantity_nano > included:
            self.refused[EXHAUSTED["metered"]] += 1
            return Verdict(is_taken=False)
        self._note(event)
        return Verdict(is_taken=True)

    def _note(self, event: Event) -> None:
        self.events += 1
        self.used[event.feature] += event.quantity_nano

    def _credits(self, event: Event) -> tuple[int, int]:
        return event.quantity_nano * (self.customer.plan.offer(event.feature).credits or 0), 0

    def _money(self, event: Event) -> tuple[int, int]:
        if event.tokens is not None:
            return ai_charge(event.tokens, self.prices[event.tokens.model], cast.MARGIN)
        unit_price = self.customer.plan.offer(event.feature).unit_price * money.NANO_PER_RATE
        charge = event.quantity_nano * unit_price // money.NANO
        return charge, charge

    def _note_model(self, tokens: Tokens, charge: int, cost: int) -> None:
        totals = self.models[tokens.model]
        totals.events += 1
        totals.uncached += tokens.input - tokens.cache_read - tokens.cache_write
        totals.cache_read += tokens.cache_read
        totals.cache_write += tokens.cache_write
        totals.output += tokens.output
        totals.cost += cost
        totals.charge += charge


def ai_charge(tokens: Tokens, price: ModelPrice, margin: int) -> tuple[int, int]:
    """Charge and cost in nano-USD: cached tokens at their own prices, the margin on the sum, then rounded once, half to even."""
    fresh = tokens.input - tokens.cache_read - tokens.cache_write
    cost_pico = fresh * price.input + tokens.output * price.output
    cost_pico += tokens.cache_read * price.cache_read + tokens.cache_write * price.cache_write
    charge = money.divide_half_even(cost_pico * (_PERCENT + margin), _PERCENT * money.PICO_PER_NANO)
    return charge, money.divide_half_even(cost_pico, money.PICO_PER_NANO)
