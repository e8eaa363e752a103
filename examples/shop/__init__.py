"""Four services: orders, payments, shipping and audit.

python -m examples.shop                      all in one process, a short story with an end
eventkit run examples.shop:services          all in one process, until Ctrl-C
eventkit run examples.shop:payments          one of them, as it would be deployed
"""

from examples.shop.audit import audit
from examples.shop.orders import orders
from examples.shop.payments import payments
from examples.shop.shipping import shipping

services = (orders, payments, shipping, audit)

__all__ = ["audit", "orders", "payments", "services", "shipping"]
