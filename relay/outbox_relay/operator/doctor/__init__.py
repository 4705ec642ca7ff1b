"""`doctor`: what is wrong, and what to do about it. It reads, and changes nothing anywhere."""

from outbox_relay.operator.doctor.examine import examine

__all__ = ["examine"]
