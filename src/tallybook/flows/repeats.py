"""The sweep: what was counted twice because only the book still knew the first time is found, taken back, and told.

The till forgets an id after the hot window at the earliest, and `old_ids` asks the book about events that are dated before that. What
is left is an event without a date that is sent again days later, or a client's clock that lies. It is looked for daily in all of
the book, and for each customer before its period is billed, so that no invoice has it. Databases do the looking: one aggregate over a
customer's events; only what is found is touched one by one.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import batched, groupby

from tallybook.charge.commands import Outcome, Receipt
from tallybook.core.tenant import Tenant
from tallybook.customers import store as customers
from tallybook.flows import old_ids, void
from tallybook.flows.services import Services
from tallybook.flows.void import Refund
from tallybook.rollup import events
from tallybook.rollup.events import Booked
from tallybook.subscriptions import terms_loader
from tallybook.subscriptions.model import UsagePeriod

_LOG = logging.getLogger(__name__)
EVERY = timedelta(days=1)
REASON = "counted before under the same event id"
_CUSTOMERS_AT_ONCE = 200
_CHARGES_AT_ONCE = 500
_ATTEMPTS = 5
