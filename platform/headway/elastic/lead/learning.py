"""What the lead of a run learns of the market it buys on, and tells it: through Ray's store, in a thread that may wait.

Where something is not to be had now, what was known before holds.
"""

from __future__ import annotations

import time

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from headway.core import offers, wishes
from headway.core.news import NAMESPACE
from headway.core.offers import Stock
from headway.elastic.lead.purchases import Purchases
from headway.elastic.lead.wishing import Wishing


def look(wishing: Wishing, purchases: Purchases) -> None:
    """Learn what there is to know, and have the cluster know what is wished. Raises whatever Ray does."""
    stock = Stock.decode(_internal_kv_get(offers.KEY, namespace=NAMESPACE))
    wishing.learnt(stock, purchases.kinds(), purchases.outlay(), purchases.head_per_hour())
    wishing.decide()
    wish = wishing.wish(time.time())
    if wish is not None:
        key = wishes.KEYS + wish.run.encode()
        _internal_kv_put(key, wish.encode(), overwrite=True, namespace=NAMESPACE)
