"""The AsyncAPI document of services, from their declarations alone: no connection, no broker client, no environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventkit import names
from eventkit.adapter import Address
from eventkit.asyncapi import envelope, operations
from eventkit.asyncapi.bindings import OWN, Bindings, bindings
from eventkit.asyncapi.declared import Declarations, MessageClass, gather
from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.keys import Keys
from eventkit.asyncapi.messages import CORRELATION, Writer, given_examples, mode_of
from eventkit.asyncapi.schemas import Wanted, describe
from eventkit.asyncapi.servers import check, servers, vhost
from eventkit.asyncapi.texts import ordered
from eventkit.errors import DeclarationError
from eventkit.messages import routing
from eventkit.names import logical
from eventkit.service import Service
from eventkit.wire import JSON, Serializer

VERSIONS = ("3.0.0", "3.1.0")
"""Of AsyncAPI, that can be written."""
FORMAT = 1
"""Of what stands under `x-eventkit`. Raised when an older `check` would misread it."""


def document(
    *services: Service,
    version: str = "3.0.0",
    broker: str | None = None,
    url: str | None = None,
    namespace: str = "",
    title: str | None = None,
    release: str = "1.0.0",
    description: str | None = None,
    security: str | None = None,
    content_type: str = JSON,
) -> dict[str, Any]:
    """The AsyncAPI document of these services, in one.

    It is the same for every broker, but for `servers` and `bindings`, which are there only if a `broker` is named.
    `url` says where it is; no secret in it gets into the document. `namespace` is EVENTKIT_NAMESPACE. `version` is
    AsyncAPI's (3.0.0 or 3.1.0), `release` that of the services' interface. `security` says how one signs in; by
    default as the URL says. `content_type` is that of the bus's serializer, for messages whose class and service name
    none. The environment is not read. DocumentError for anything that cannot be described.
    """
    if version not in VERSIONS:
        raise DocumentError(f"version={version!r}: AsyncAPI {' and '.join(VERSIONS)} can be written")
    if namespace:
        try:
            logical(namespace, "namespace=")
        except DeclarationError as error:
            raise DocumentError(str(error)) from None
    check(broker, security)
    declarations = gather(services)
    found_servers, schemes = servers(broker, url, security)
    made = _Document(declarations, bindings(broker, namespace, vhost(broker, url)), namespace, content_type)
    whole: dict[str, Any] = {
        "asyncapi": version,
        "info": {
            "title": title or ", ".join(service.name for service in declarations.services),
            "version": release,
            "tags": [{"name": service.name} for service in declarations.services],
        },
        "defaultContentType": content_type,
        "channels": made.channels(),
        "operations": made.operations(),
        "components": made.components(schemes),
        OWN: {"format": FORMAT, "namespace": namespace},
    }
    if description:
        whole["info"]["description"] = description
    if found_servers:
        whole["servers"] = found_servers
    result: dict[str, Any] = ordered(whole)
    return result


def documents(*services: Service, **options: Any) -> dict[str, dict[str, Any]]:
    """A document for each service, by its name. The options are those of `document`."""
    gather(services)
    return {service.name: document(service, **options) for service in services}


class _Document:
    """The parts of a document, and the keys by which they refer to each other."""

    def __init__(self, declarations: Declarations, broker: Bindings, namespace: str, content_type: str) -> None:
        self._declarations = declarations
        self._bindings = broker
        self._naming = names.memory(namespace)
        messages = declarations.messages.values()
        for cls in messages:
            given_examples(cls)  # pydantic copies them into the schema, and trips over what is no JSON
        replies = [cls for cls in messages if routing(cls).reply is not None]
        self._schemas = describe(
            [
                *(Wanted(cls.__name__, cls, mode_of(cls)) for cls in messages),
                *(Wanted(f"the reply to {cls.__name__}", routing(cls).reply, "serialization") for cls in replies),
            ]
        )
        self._writer = Writer(self._schemas, broker, content_type)
        self._keys = operations.Where(declarations, Keys(), Keys())

    def channels(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for address in self._declarations.addresses:
            channel: dict[str, Any] = {
                "address": self._naming.channel(*address),
                "title": address.name,
                "summary": _ABOUT[address.kind].format(address.name),
                "messages": {
                    self._keys.message(address, cls): _component("messages", self._keys.component(address, cls))
                    for cls in self._declarations.on(address)
                },
                OWN: {"kind": address.kind, "name": address.name},
            }
            bound = self._bindings.channel(address)
            if bound:
                channel["bindings"] = bound
            found[self._keys.channel(address)] = channel
        for service, answers in operations.answers(self._declarations, self._keys).items():
            found[f"{service}.reply"] = {
                "address": None,
                "title": f"Replies of {service}",
                "summary": "Where the request says, in its header reply_to.",
                "messages": {key: _component("messages", key) for key in answers},
                OWN: {"kind": "reply", "name": service},
            }
        return found

    def operations(self) -> dict[str, Any]:
        return operations.write(self._declarations, self._keys, self._bindings, self._naming)

    def components(self, schemes: Mapping[str, Any]) -> dict[str, Any]:
        messages = self._messages()
        kinds = sorted({message[OWN]["kind"] for message in messages.values()})
        found = {
            "schemas": {
                **self._schemas.components,
                **{envelope.SCHEMAS[kind]: envelope.schema(kind) for kind in envelope.KINDS if kind in kinds},
            },
            "messages": messages,
            "messageTraits": {kind: self._message_trait(kind) for kind in kinds},
            "operationTraits": operations.traits(self._declarations),
            "correlationIds": {CORRELATION: _CORRELATION} if messages else {},
            "securitySchemes": dict(schemes),
        }
        return {name: part for name, part in found.items() if part}

    def _messages(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for (address, _), cls in self._declarations.messages.items():
            key = self._keys.component(address, cls)
            sender = self._sender(address, cls)
            # who takes a command reads what his own service writes
            serializer = self._serializer(address.name if sender is None and address.kind == "inbox" else sender)
            found[key] = self._writer.message(cls, sender or "website", serializer)
        for answers in operations.answers(self._declarations, self._keys).values():
            for answer, command in answers.items():
                found[answer] = self._answer(answer, command)
        return found

    def _answer(self, key: str, cls: MessageClass | None) -> dict[str, Any]:
        if cls is not None:
            return self._writer.reply(cls, self._serializer(routing(cls).service))
        shared = {
            operations.DONE: self._writer.done,
            operations.REJECTED: self._writer.rejected,
            operations.FAILED: self._writer.failed,
        }
        return shared[key]()

    def _serializer(self, service: str | None) -> Serializer | None:
        """That a service says; None: it says none, or is not described here."""
        found = (one.serializer for one in self._declarations.services if one.name == service)
        return next(found, None)

    def _sender(self, address: Address, cls: MessageClass) -> str | None:
        """A service that says it sends it."""
        senders = (
            operation.service
            for operation in self._declarations.operations
            if operation.sends and operation.address == address and cls in operation.classes
        )
        return next(senders, None)

    def _message_trait(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "tags": [{"name": kind}],
            "correlationId": {"$ref": f"#/components/correlationIds/{CORRELATION}"},
        }
        bound = self._bindings.headers()
        if bound:
            found["bindings"] = bound
        return found


_ABOUT: Mapping[str, str] = {
    "topic": "Events. Each group of each service gets every one of them; the replicas of a service share the work.",
    "inbox": "Commands for the service {}, which alone handles them.",
}


_CORRELATION = {
    "description": "The same for all messages that one message has led to.",
    "location": "$message.header#/correlation_id",
}


def _component(kind: str, key: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{key}"}
