"""Examples for the help of each command, by its name. They stand in one place, so that a test can try them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EXAMPLES: Mapping[str, Sequence[str]] = {
    "": (
        "eventkit run shop.orders:service  # start a service",
        """eventkit publish OrderPlaced '{"order_id": "7"}'  # and give it something to do""",
        "eventkit doctor  # if something does not work",
        "eventkit --install-completion  # commands, options and types by the Tab key",
    ),
    "run": (
        "eventkit run shop.orders:service",
        "eventkit run  # the only service of this folder",
        "eventkit run --reload shop.orders:service shop.payments:service  # to develop with",
        "eventkit run --workers 4 --log-format json --env-file shop.env shop.orders:service",
        "EVENTKIT_BROKER=redis EVENTKIT_URL=redis://localhost:6379 eventkit run shop.orders:service",
    ),
    "new": (
        "eventkit new order-service",
        "eventkit new order-service --broker kafka",
    ),
    "publish": (
        """eventkit publish OrderPlaced '{"order_id": "7"}'""",
        """eventkit publish shop.messages:OrderPlaced '{"order_id": "7"}' --header tenant=acme --delay 5m""",
        """eventkit publish OrderPlaced '{"order_id": "7"}' --count 1000 --rate 50""",
        "cat orders.jsonl | eventkit publish OrderPlaced",
    ),
    "send": (
        """eventkit send BookParcel '{"order_id": "7"}'""",
        """eventkit send BookParcel '{"order_id": "7"}' --from shop.shipping:service --id import-7 --json""",
        "cat parcels.jsonl | eventkit send BookParcel --rate 10",
    ),
    "request": (
        """eventkit request QuoteShipping '{"postcode": "1010"}'""",
        """eventkit request QuoteShipping '{"postcode": "1010"}' --timeout 2s""",
        "cat postcodes.jsonl | eventkit request QuoteShipping > quotes.jsonl",
    ),
    "status": (
        "eventkit status",
        "eventkit status shop.orders:service",
        "eventkit status shop.orders:service --watch",
        "eventkit status --group shipping --json",
    ),
    "groups": ("eventkit groups list",),
    "groups list": (
        "eventkit groups list",
        "eventkit groups list --json",
    ),
    "groups remove": (
        "eventkit groups remove shipping.audit",
        "eventkit groups remove shipping --force --yes",
    ),
    "tail": (
        "eventkit tail orders",
        "eventkit tail OrderPlaced inbox:shipping --key 7",
        "eventkit tail orders --from-start --limit 10",
        "eventkit tail dead:shipping --from-start --type OrderPlaced --json",
    ),
    "doctor": (
        "eventkit doctor",
        "eventkit doctor shop.orders:service --rights",
    ),
    "health": (
        "eventkit health --port 8080",
        "eventkit health --port 8080 --live --json",
    ),
    "dead-letters": ("eventkit dead-letters list --group shipping",),
    "dead-letters list": (
        "eventkit dead-letters list",
        "eventkit dead-letters list --group shipping",
        "eventkit dead-letters list --group shop.shipping:service --since 2h --reason exhausted",
        "eventkit dead-letters list --group shipping --json",
    ),
    "dead-letters show": ("eventkit dead-letters show 01a210be-c91e --group shipping",),
    "dead-letters retry": (
        "eventkit dead-letters retry 01a210be-c91e --group shipping",
        "eventkit dead-letters retry --group shipping --type OrderPlaced --since 2h",
        "eventkit dead-letters retry --group shipping --all",
    ),
    "dead-letters discard": (
        "eventkit dead-letters discard 01a210be-c91e --group shipping",
        "eventkit dead-letters discard --group shipping --type OrderPlaced --yes",
    ),
    "ui": (
        "eventkit ui shop.orders:service shop.payments:service",
        "eventkit ui shop.orders:service --port 0 --no-browser --read-only",
        "eventkit ui shop.orders:service --host 0.0.0.0 --allow-host events.example  # prints a token",
        "eventkit ui --run shop.orders:service  # runs it too, so that it works in memory as well",
    ),
    "topics": ("eventkit topics show shop.orders:service",),
    "topics show": (
        "eventkit topics show shop.orders:service",
        "eventkit topics show shop.orders:service --broker kafka --json",
    ),
    "topics validate": ("eventkit topics validate shop.orders:service",),
    "topics create": ("eventkit topics create shop.orders:service",),
    "docs": ("eventkit docs serve shop.orders:service",),
    "docs json": (
        "eventkit docs json shop.orders:service",
        "eventkit docs json shop.orders:service --broker kafka --url kafka://kafka:9092 -o asyncapi.json",
    ),
    "docs yaml": (
        "eventkit docs yaml shop.orders:service -o asyncapi.yaml",
        "eventkit docs yaml shop:services --each -o docs/events",
    ),
    "docs check": (
        "eventkit docs check asyncapi.yaml shop.orders:service",
        "eventkit docs check asyncapi.yaml shop.orders:service --exact --format github",
        "eventkit docs check asyncapi.yaml shop.orders:service --accept all --reason 'nobody reads it, ticket 812'",
    ),
    "docs build": ("eventkit docs build shop.orders:service -o site",),
    "docs serve": (
        "eventkit docs serve shop.orders:service",
        "eventkit docs serve shop.orders:service shop.payments:service --port 8091",
    ),
    "docs map": (
        "eventkit docs map shop.orders:service -o map.svg",
        "eventkit docs map shop.orders:service --retries --format mermaid",
    ),
}
