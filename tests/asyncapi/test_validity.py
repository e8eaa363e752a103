"""Documents are valid: by the official JSON Schemas and parser, for samples, examples and generated declarations."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from eventkit import Service
from eventkit.adapter import Address, Message
from eventkit.asyncapi import compare, document, to_json, to_yaml
from eventkit.asyncapi.contract import parse as parse_text
from eventkit.asyncapi.declared import gather
from eventkit.messages import routing
from eventkit.wire import decode
from tests.asyncapi import samples
from tests.asyncapi.conftest import Parse
from tests.asyncapi.generated import services

GENERATED = 110
BROKERS = (None, "kafka", "rabbit", "nats", "redis", "memory")
URLS = {
    "kafka": "kafka+ssl://user:secret@k1:9093,k2:9093",
    "rabbit": "amqp://user:secret@mq/shop",
    "nats": "nats://n1:4222",
    "redis": "rediss://:secret@cache:6380/0",
}

Official = Callable[[str], jsonschema.Draft7Validator]


def known() -> dict[str, Sequence[Service]]:
    found: dict[str, Sequence[Service]] = {"samples": samples.services, "nothing": [Service("samples-nothing")]}
    for name, module in {"shop": "examples.shop", "registration": "examples.registration.service"}.items():
        loaded = importlib.import_module(module)
        found[name] = getattr(loaded, "services", None) or (loaded.service,)
    return found


@pytest.mark.parametrize("version", ["3.0.0", "3.1.0"])
@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("name", ["samples", "nothing", "shop", "registration"])
def test_documents_are_valid(official: Official, name: str, broker: str | None, version: str) -> None:
    found = document(*known()[name], broker=broker, url=URLS.get(broker or ""), namespace="acme", version=version)
    assert _errors(official(version), found) == []
    _examples_fit(found)


@pytest.fixture(scope="module")
def generated() -> list[Service]:
    """A hundred services, the same in each run."""
    found: list[Service] = []

    @settings(
        max_examples=GENERATED,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(services())
    def collect(service: Service) -> None:
        found.append(service)

    collect()
    assert len(found) >= 100
    return found


Parsing = tuple[list[dict[str, Any]], "Future[list[dict[str, Any]]]"]


@pytest.fixture(scope="module")
def parsing(parse: Parse, generated: list[Service]) -> Parsing:
    """All that the parser is to read, and what it will say."""
    half = (len(generated) + 1) // 2
    broken = document(samples.web)
    broken["operations"]["samples-web.thank"]["messages"] = [{"$ref": "#/channels/nowhere/messages/Nothing"}]
    documents = [
        broken,
        *(
            document(*services_, broker=broker, url=URLS[broker], version=version)
            for services_, broker, version in zip(
                known().values(),
                ("kafka", "nats", "rabbit", "redis"),
                ("3.0.0", "3.0.0", "3.1.0", "3.0.0"),
                strict=True,
            )
        ),
        # in a few documents of many services: the parser has a price for each
        document(*generated[:half], broker="kafka"),
        document(*generated[half:], broker="rabbit"),
    ]
    return documents, parse(documents)


def test_generated_documents_are_valid(official: Official, generated: list[Service], parsing: Parsing) -> None:
    assert parsing  # the parser is at work meanwhile
    made = 0
    for number, service in enumerate(generated):
        broker, version = BROKERS[number % len(BROKERS)], "3.1.0" if number % 2 else "3.0.0"
        found = document(service, broker=broker, url=URLS.get(broker or ""), version=version)
        assert _errors(official(version), found) == [], to_yaml(found)
        made += _examples_fit(found)
        _examples_are_read(service, found)
    assert made > GENERATED  # there are examples, not only none that do not fit


def test_generated_documents_are_stable(generated: list[Service]) -> None:
    for number, service in enumerate(generated):
        found = document(service)
        assert to_json(document(service)) == to_json(found)
        assert compare(found, found) == []
        assert json.loads(to_json(found)) == found
        if number % 5 == 0:  # YAML is slow to read
            assert parse_text(to_yaml(found), "text") == found


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(services(), min_size=2, max_size=3, unique_by=lambda service: service.name))
def test_a_merged_document_is_valid(official: Official, several: list[Service]) -> None:
    found = document(*several)
    assert _errors(official("3.0.0"), found) == []
    assert to_json(document(*reversed(several))) == to_json(found)


def test_the_parser_finds_no_errors(parsing: Parsing) -> None:
    documents, answers = parsing
    broken, *said = answers.result(timeout=300)
    assert broken["errors"]  # it would find one
    assert said == [{"errors": [], "operations": len(found["operations"])} for found in documents[1:]]


def _errors(validator: jsonschema.Draft7Validator, found: Mapping[str, Any]) -> list[str]:
    if validator.is_valid(found):
        return []
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(found)]


def _examples_fit(found: Mapping[str, Any]) -> int:
    """Each example fits its payload and header schema, by a validator that is not ours."""
    count = 0
    for key, message in found["components"].get("messages", {}).items():
        for example in message.get("examples", ()):
            count += 1
            for part in ("payload", "headers"):
                whole = {"components": found["components"], **message[part]}
                if "$ref" in whole:
                    whole = {"components": found["components"], "allOf": [{"$ref": whole.pop("$ref")}]}
                validator = jsonschema.Draft7Validator(whole)
                errors = [error.message for error in validator.iter_errors(example[part])]
                assert errors == [], (key, part, example[part])
    return count


def _examples_are_read(service: Service, found: Mapping[str, Any]) -> None:
    """What the document shows, a handler would get."""
    by_type = {message["name"]: message for message in found["components"]["messages"].values()}
    for cls in gather([service]).messages.values():
        for example in by_type[routing(cls).type].get("examples", ()):
            body = json.dumps(example["payload"]).encode()
            message = Message(Address("topic", "t"), example["headers"]["ce-type"], None, example["headers"], body)
            assert isinstance(decode(message, cls), cls)
