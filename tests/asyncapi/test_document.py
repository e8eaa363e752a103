"""What the document says about declarations."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eventkit import Command, Event, Service
from eventkit.asyncapi import DocumentError, document, documents, to_json, to_yaml
from eventkit.asyncapi.contract import parse as parse_text
from eventkit.batches import Batch
from tests.asyncapi.samples import OrderPaid, OrderPlaced, services, shipping, web

ROOT = Path(__file__).parents[2]
BROKERS = ("kafka", "rabbit", "nats", "redis")


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    return document(*services, namespace="acme")


def test_channels_have_the_addresses_of_the_broker(sample: dict[str, Any]) -> None:
    addresses = {key: channel["address"] for key, channel in sample["channels"].items()}
    assert addresses == {
        "samples.orders": "acme.samples.orders",
        "samples.legacy": "LEGACY/orders",
        "samples-shipping.inbox": "acme.samples-shipping.inbox",
        "samples-elsewhere.inbox": "acme.samples-elsewhere.inbox",
        "samples-shipping.reply": None,
    }


def test_every_message_is_there_once(sample: dict[str, Any]) -> None:
    messages = sample["components"]["messages"]
    types = [message["x-eventkit"]["type"] for message in messages.values() if "type" in message["x-eventkit"]]
    assert sorted(types) == [
        "CancelOrder",
        "Legacy",
        "OrderPayed",
        "OrderPlaced",
        "QuoteShipping",
        "RemindLater",
        "list/quotes",
        "orders.paid",
    ]
    for channel in sample["channels"].values():
        assert all(set(reference) == {"$ref"} for reference in channel["messages"].values())


def test_a_message_says_key_version_kind_and_deprecation(sample: dict[str, Any]) -> None:
    messages = sample["components"]["messages"]
    assert messages["OrderPlaced"]["x-eventkit"] == {
        "kind": "event",
        "type": "OrderPlaced",
        "version": 2,
        "key": "order_id",
        "upcastsFrom": [1],
    }
    assert messages["OrderPlaced"]["summary"] == "Somebody ordered."
    assert "is paid later" in messages["OrderPlaced"]["description"]
    assert messages["OrderPayed"]["deprecated"] is True
    assert {"name": "deprecated"} in messages["OrderPayed"]["tags"]
    assert messages["QuoteShipping"]["tags"] == [{"name": "command"}]
    assert messages["QuoteShipping"]["traits"] == [{"$ref": "#/components/messageTraits/command"}]
    assert messages["OrderPlaced"]["headers"]["properties"]["ce-dataversion"]["const"] == "2"
    assert messages["OrderPlaced"]["headers"]["required"] == ["ce-subject", "ce-partitionkey"]
    assert "required" not in messages["CancelOrder"]["headers"]  # its key may be null


def test_operations_of_handlers(sample: dict[str, Any]) -> None:
    operations = sample["operations"]
    assert sorted(operations) == [
        "samples-shipping.both",
        "samples-shipping.both.from.samples.legacy",
        "samples-shipping.both.to.samples.orders",
        "samples-shipping.cancel",
        "samples-shipping.cancel.to.samples-elsewhere.inbox",
        "samples-shipping.cancel.to.samples.orders",
        "samples-shipping.note",
        "samples-shipping.publishes.to.samples.orders",
        "samples-shipping.quote",
        "samples-shipping.quotes",
        "samples-web.thank",
        "samples-web.thank.to.samples-shipping.inbox",
        "samples-web.thank.to.samples.orders",
    ]
    quote = operations["samples-shipping.quote"]
    assert quote["summary"] == "Asks the carriers."
    assert [part["$ref"].rpartition("/")[2] for part in quote["reply"]["messages"]] == [
        "QuoteShipping.reply",
        "eventkit.failed",
        "eventkit.rejected",
    ]
    cancel = operations["samples-shipping.cancel"]
    assert cancel["reply"]["messages"][0]["$ref"].endswith("/eventkit.done")
    assert "messages" not in operations["samples-shipping.note"]  # whatever is on the channel
    assert operations["samples-shipping.note"]["x-eventkit"]["group"] == "samples-shipping.audit"
    sent = operations["samples-shipping.publishes.to.samples.orders"]
    assert sent["action"] == "send"
    assert sent["messages"] == [{"$ref": "#/channels/samples.orders/messages/OrderPayed"}]


def test_retry_and_dead_letters(sample: dict[str, Any]) -> None:
    own = sample["operations"]["samples-shipping.quote"]["x-eventkit"]
    assert own["retry"] == {
        "address": "acme.samples-shipping.retry",
        "attempts": 3,
        "firstDelay": 1,
        "factor": 2,
        "maxDelay": 300,
        "inOrder": False,
        "never": ["tests.asyncapi.samples.OutOfPaper"],
    }
    assert own["deadLetters"] == {"address": "acme.samples-shipping.dead"}
    assert own["timeout"] == 30
    in_order = sample["operations"]["samples-shipping.both"]["x-eventkit"]["retry"]
    assert in_order["inOrder"] is True
    assert "address" not in in_order


def test_payloads_speak_the_dialect_of_asyncapi(sample: dict[str, Any]) -> None:
    schemas = sample["components"]["schemas"]
    order = schemas["OrderPlaced"]["properties"]
    assert order["pair"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert order["shipTo"] == {"allOf": [{"$ref": "#/components/schemas/Address"}], "description": "Where to."}
    assert order["total"] == {
        "type": "string",
        "format": "decimal",
        "exclusiveMinimum": 0,
        "x-decimalPlaces": 2,
        "title": "Total",
        "description": "In euros.",
        "examples": ["12.5"],  # as it stands on the wire
    }
    assert "is_large" in order
    assert "discriminator" not in order["paid_with"]
    assert schemas["Card"]["properties"]["number"]["pattern"] == r"(\d{4})$"
    # a command is described as its owner takes it
    weight = schemas["QuoteShipping"]["properties"]["weight"]
    assert [part["type"] for part in weight["anyOf"]] == ["number", "string"]
    assert "$defs" not in to_json(sample)


def test_examples_are_the_users_or_ours(sample: dict[str, Any]) -> None:
    messages = sample["components"]["messages"]
    assert messages["orders.paid"]["examples"][0]["payload"] == {"order_id": 7, "total": "12.5"}
    assert messages["orders.paid"]["examples"][0]["headers"]["ce-partitionkey"] == "7"
    assert messages["OrderPlaced"]["examples"][0]["payload"]["shipTo"]["postcode"] == "NL1234"
    assert messages["OrderPlaced"]["examples"][0]["payload"]["old"] is None  # nobody should copy what is outdated
    assert all(message["examples"] for message in messages.values())


def without_bindings(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: without_bindings(value) for key, value in node.items() if key not in ("bindings", "servers")}
    return [without_bindings(item) for item in node] if isinstance(node, list) else node


@pytest.mark.parametrize("broker", BROKERS)
def test_brokers_differ_in_servers_and_bindings_alone(broker: str, sample: dict[str, Any]) -> None:
    found = document(*services, namespace="acme", broker=broker)
    assert without_bindings(found) == sample
    assert found["servers"][broker]["host"].startswith("localhost:")


def test_bindings() -> None:
    kafka = document(*services, broker="kafka", namespace="acme")
    assert kafka["channels"]["samples.orders"]["bindings"]["kafka"]["topic"] == "acme.samples.orders"
    assert kafka["operations"]["samples-web.thank"]["bindings"]["kafka"]["groupId"]["enum"] == ["acme.samples-web"]
    key = kafka["components"]["messages"]["OrderPlaced"]["bindings"]["kafka"]["key"]
    assert (key["type"], key["format"]) == ("string", "uuid")
    rabbit = document(*services, broker="rabbit", url="amqp://guest:guest@mq/shop")
    exchange = rabbit["channels"]["samples-shipping.inbox"]["bindings"]["amqp"]["exchange"]
    assert (exchange["name"], exchange["vhost"]) == ("samples-shipping.inbox", "shop")
    nats = document(*services, broker="nats")
    assert nats["channels"]["samples.orders"]["bindings"] == {
        "x-eventkit": {"stream": "samples=orders", "subject": "samples=orders.<type>"}
    }
    redis = document(*services, broker="redis")
    assert redis["channels"]["samples-shipping.inbox"]["bindings"]["x-eventkit"]["stream"] == "{samples-shipping}.inbox"


@pytest.mark.parametrize(
    ("broker", "url", "hosts", "protocol", "scheme"),
    [
        ("kafka", "kafka+ssl://bob:hunter2@k1:9093,k2:9093", ["k1:9093", "k2:9093"], "kafka-secure", "plain"),
        ("kafka", "k1", ["k1:9092"], "kafka", None),
        ("rabbit", "amqps://bob:hunter2@mq/prod", ["mq:5672"], "amqps", "userPassword"),
        ("nats", "nats://bob:hunter2@n1:4222,nats://n2", ["n1:4222", "n2:4222"], "nats", "userPassword"),
        ("redis", "rediss://:hunter2@cache:6380/1?password=hunter2", ["cache:6380"], "rediss", "userPassword"),
        ("redis", "redis://[::1]", ["[::1]:6379"], "redis", None),
        ("kafka", "kafka://bob:hun,ter2@k1", ["k1:9092"], "kafka", "plain"),
    ],
)
def test_servers_hold_no_secret(broker: str, url: str, hosts: list[str], protocol: str, scheme: str | None) -> None:
    found = document(web, broker=broker, url=url)
    assert [server["host"] for server in found["servers"].values()] == hosts
    assert {server["protocol"] for server in found["servers"].values()} == {protocol}
    assert list(found["components"].get("securitySchemes", {})) == ([] if scheme is None else [scheme])
    assert not any(word in to_json(found) for word in ("hunter2", "bob", "hun,", "ter2"))


def test_a_url_that_would_leak_is_refused() -> None:
    with pytest.raises(DocumentError, match="percent-encoded") as refused:
        document(web, broker="redis", url="redis://u:12/se@cret")
    assert "cret" not in str(refused.value)


def test_one_document_each_or_one_for_all() -> None:
    each = documents(*services)
    assert list(each) == ["samples-shipping", "samples-web"]
    for name, found in each.items():
        assert found["info"]["title"] == name
        whole = document(*services)["components"]["messages"]
        for key in ("OrderPlaced", "orders.paid"):
            mine = {word: value for word, value in found["components"]["messages"][key].items() if word != "examples"}
            assert mine == {word: value for word, value in whole[key].items() if word != "examples"}


def test_the_order_of_services_does_not_matter() -> None:
    assert to_json(document(shipping, web)) == to_json(document(web, shipping))


def test_yaml_and_json_say_the_same() -> None:
    found = document(*services, broker="kafka")
    assert parse_text(to_yaml(found), "text") == found == json.loads(to_json(found))


def test_yaml_quotes_what_newer_readers_take_for_numbers() -> None:
    text = to_yaml({"a": "1e3", "b": "0o17", "c": "no", "d": "12:30", "e": "1.50", "f": "two\nlines"})
    assert text == "a: '1e3'\nb: '0o17'\nc: 'no'\nd: '12:30'\ne: '1.50'\nf: |-\n  two\n  lines\n"


def test_it_is_the_same_in_every_process() -> None:
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.asyncapi.samples import services\n"
        "from eventkit.asyncapi import document, to_json\n"
        "print(to_json(document(*services, broker='rabbit')), end='')\n"
        "clients = {'aiokafka', 'aio_pika', 'aiormq', 'nats', 'redis', 'faststream'} & set(sys.modules)\n"
        "assert not clients, clients\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "EVENTKIT_BROKER": "kafka", "EVENTKIT_NAMESPACE": "other"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {to_json(document(*services, broker="rabbit"))}


def test_a_serializer_of_a_class_shows_in_the_content_type() -> None:
    class Packed:
        content_type = "application/msgpack"

        def encode(self, message: Any, /) -> bytes: ...

        def decode(self, body: bytes, as_: Any, /) -> Any: ...

        def data(self, body: bytes, /) -> object: ...

    class Measured(Event, topic="samples.measures", serializer=Packed()):
        value: float

    service = Service("samples-measures")

    @service.handler
    async def store(event: Measured) -> None: ...

    message = document(service)["components"]["messages"]["Measured"]
    assert message["contentType"] == "application/msgpack"
    assert message["headers"]["properties"]["content-type"]["const"] == "application/msgpack"


def test_same_type_on_two_channels_and_same_models_in_two_modules() -> None:
    class Created(Event, topic="samples.a"):
        id: int

    one = Created

    class Other(Event, topic="samples.b", type="Created"):
        name: str

    service = Service("samples-same")

    @service.handler
    async def first(event: one) -> None: ...

    @service.handler
    async def second(event: Other) -> None: ...

    messages = document(service)["components"]["messages"]
    assert sorted(messages) == ["samples.a.Created", "samples.b.Created"]
    assert {message["name"] for message in messages.values()} == {"Created"}


def test_the_sender_of_an_event_has_the_last_word() -> None:
    class Full(Event, topic="samples.words", type="Said"):
        words: list[str]
        loud: bool

    class Part(Event, topic="samples.words", type="Said"):
        words: list[str]

    class Say(Command, service="samples-z"):
        pass

    reader, speaker = Service("samples-a"), Service("samples-z")

    @reader.handler
    async def listen(event: Part) -> None: ...

    @speaker.handler
    async def speak(command: Say) -> Full: ...

    assert document(reader, speaker)["components"]["messages"]["Said"]["payload"] == {
        "$ref": "#/components/schemas/Full"
    }


def test_publishes_refuses_what_cannot_go_out() -> None:
    with pytest.raises(Exception, match="neither an Event nor a Command"):
        Service("samples-web", publishes=(int,))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="takes message classes"):
        Service("samples-web", publishes=("OrderPaid",))  # type: ignore[arg-type]
    speaking = Service("samples-web", publishes=(OrderPaid, OrderPaid))
    messages = document(speaking)["operations"]["samples-web.publishes.to.samples.orders"]["messages"]
    assert len(messages) == 1


def test_title_release_and_description() -> None:
    found = document(web, title="Shop", release="2.1.0", description="All of it.", version="3.1.0")
    assert found["asyncapi"] == "3.1.0"
    assert {word: found["info"][word] for word in ("title", "version", "description")} == {
        "title": "Shop",
        "version": "2.1.0",
        "description": "All of it.",
    }


def test_a_handler_of_batches() -> None:
    service = Service("samples-batches")

    @service.handler(batch=Batch(size=50, wait=timedelta(milliseconds=200)))
    async def many(events: list[OrderPaid]) -> list[OrderPlaced] | None: ...

    operations = document(service)["operations"]
    assert operations["samples-batches.many"]["x-eventkit"]["batch"] == {"size": 50, "wait": 0.2}
    assert operations["samples-batches.many"]["messages"] == [
        {"$ref": "#/channels/samples.orders/messages/orders.paid"}
    ]
    assert operations["samples-batches.many.to.samples.orders"]["action"] == "send"
