"""Following: a look at what is published, by somebody who is no group."""

from __future__ import annotations

from eventkit.adapter import DONE, Address, Delivery, Group, Provision
from eventkit.contract.checks import Backend, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import following, put, raw, receive, started
from eventkit.contract.samples import raises
from eventkit.errors import NotProvisioned

_TOPIC = Address("topic", "followed")
_INBOX = Address("inbox", "followed")
_GROUP = Group("followed", (_TOPIC, _INBOX))


def _bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.message.body or b"" for delivery in deliveries]


@check("L11", "who follows a topic or an inbox sees all that is put there from then on, and disturbs no group")
async def follow(backend: Backend) -> None:
    wanted = [f"{number}".encode() for number in range(300)]
    async with started(backend, fresh_namespace()) as adapter, started(backend, fresh_namespace()) as elsewhere:
        await raises(NotProvisioned, adapter.follow(_TOPIC).__aenter__())
        await adapter.provision([_GROUP], Provision.CREATE)
        await elsewhere.provision([_GROUP], Provision.CREATE)
        await put(adapter, raw(_TOPIC, b"before", "k"))
        async with following(adapter, _TOPIC) as first, following(adapter, _TOPIC) as second:
            async with following(adapter, _INBOX) as inbox:
                await put(elsewhere, raw(_TOPIC, b"of another namespace", "k"))
                await put(adapter, *(raw(_TOPIC, body, "k", headers={"h": "v\u00e9"}) for body in wanted))
                await put(adapter, raw(_INBOX, b"a command", "k"))
                await eventually(lambda: min(len(first), len(second)) >= 300 and inbox, "all is seen by each")
                await stays(lambda: (len(first), len(second), len(inbox)) == (300, 300, 1), "more is seen", 0.3)
            assert _bodies(first) == _bodies(second) == wanted, "in the order of its key"
            assert _bodies(inbox) == [b"a command"]
            message = first[7].message
            assert (message.address, message.type, message.key) == (_TOPIC, "Raw", "k")
            assert message.headers["h"] == "v\u00e9"
            # nothing was taken from the group, or settled for it
            receiving = await receive(adapter, _GROUP, settle_with=DONE)
            await receiving.arrive(302)
            await stays(lambda: len(receiving.got) == 302, "something came twice", 0.2)
            await receiving.consumer.stop(5.0)
            assert sorted(_bodies(receiving.got)) == sorted([b"before", b"a command", *wanted])
        left = await adapter.measure(_GROUP)
        assert (left.ready or 0, left.in_flight or 0, left.dead) == (0, 0, 0), f"it left something behind: {left}"
        await put(adapter, raw(_TOPIC, b"after", "k"))
        assert len(first) == 300, "it goes on after its end"
