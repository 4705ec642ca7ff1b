"""Which message each delivery tag stands for. A confirm settles its own tag and no other.

Pure: tags are counted as the broker counts them, from 1 on each channel, and every message taken
off is either confirmed, returned, or refused by name. The mistake this file exists to prevent is
taking a late confirm for the next message's.
"""

from collections.abc import Collection, Iterable

from outbox_relay.broker.amqp.inbound import Confirm, Returned
from outbox_relay.core.message import Message, Reason, Refusal


class Flight:
    """The messages published on one channel and not yet confirmed, by delivery tag."""

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}
        self._returned: dict[int, str] = {}
        self._last = 0
        self._lowest = 1  # no tag below it is in flight
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def last_tag(self) -> int:
        """The tag of the newest message published."""
        return self._last

    @property
    def lowest_tag(self) -> int:
        """The tag of the oldest message in flight, or one beyond the newest where none is."""
        while self._lowest <= self._last and self._lowest not in self._messages:
            self._lowest += 1
        return self._lowest

    @property
    def newest_tag(self) -> int:
        """The tag of the newest message in flight, 0 where none is."""
        return next(reversed(self._messages), 0)

    def is_clear(self, first: int, last: int) -> bool:
        """Whether nothing with a tag from the first to the last is in flight any more."""
        return not any(tag in self._messages for tag in range(last, first - 1, -1))

    def take_off(self, messages: Iterable[Message]) -> None:
        """Number the messages about to be written, in the order they will be written."""
        for message in messages:
            self._last += 1
            self._messages[self._last] = message
            self.bytes += message.size

    def returned(self, event: Returned) -> int:
        """Remember that a message came back; its confirm will follow.

        A return carries no tag. Where several messages in flight answer its description, all of
        them are taken to have come back: a duplicate is permitted, a loss is not. Returns how many.
        """
        reason = (
            f"{event.code} {event.text}: exchange {event.exchange!r}, key {event.routing_key!r}"
        )
        on_route = [
            (tag, message)
            for tag, message in self._messages.items()
            if message.routing_key == event.routing_key and message.exchange == event.exchange
        ]
        name = event.correlation_id or event.message_id or ""
        named = [
            tag
            for tag, message in on_route
            # JSON may write the name with escapes: a match cannot be ruled out.
            if name
            and (
                message.message_id == name
                or name.encode() in message.properties
                or b"\\" in message.properties
            )
        ]
        tags = named or [tag for tag, _ in on_route]
        for tag in tags:
            self._returned[tag] = reason
        return len(tags)

    def confirmed(self, event: Confirm, into: list[Message], refused: list[Refusal]) -> None:
        """Take what one confirm covers out of flight, into the list for its outcome."""
        tags: Iterable[int] = (event.tag,)
        if event.multiple:
            # Tag 0 with `multiple` means everything so far (AMQP 0-9-1, basic.ack).
            top = event.tag or self._last
            tags = range(self._lowest, min(top, self._last) + 1)
            self._lowest = max(self._lowest, tags.stop)
        for tag in tags:
            message = self._messages.pop(tag, None)
            if message is None:
                continue
            self.bytes -= message.size
            if tag in self._returned:
                refused.append(Refusal(message, Reason.UNROUTABLE, self._returned.pop(tag)))
            elif event.ack:
                into.append(message)
            else:
                detail = "the queue did not take it (full, or without its quorum)"
                refused.append(Refusal(message, Reason.NACKED, detail))

    def passed_over(self, tag: int) -> bool:
        """Whether any message after this tag has been confirmed."""
        later = self._last - tag
        return later > 0 and sum(1 for each in self._messages if each > tag) < later

    def give_up(self, upto: int, route: tuple[str, str] | None = None) -> list[Message]:
        """Wait no longer for what was published up to a tag, on any route or that one."""
        tags = [
            tag
            for tag, message in self._messages.items()
            if tag <= upto and route in (None, (message.exchange, message.routing_key))
        ]
        given_up = [self._messages.pop(tag) for tag in tags]
        self.bytes -= sum(message.size for message in given_up)
        for tag in tags:
            self._returned.pop(tag, None)
        return given_up

    def forget(self, ids: Collection[int]) -> None:
        """Wait no longer for the messages with these ids."""
        for tag in [tag for tag, message in self._messages.items() if message.id in ids]:
            self.bytes -= self._messages.pop(tag).size
            self._returned.pop(tag, None)

    def upto(self, tag: int) -> list[Message]:
        """What is in flight, and was published up to this tag."""
        return [message for each, message in self._messages.items() if each <= tag]

    def unconfirmed(self) -> list[Message]:
        """What is in flight, and stays unknown once the connection is lost."""
        return list(self._messages.values())
