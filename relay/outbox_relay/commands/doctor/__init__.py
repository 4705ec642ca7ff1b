"""`doctor`: what is wrong, and what to do about it. It reads, and changes nothing anywhere."""

from outbox_relay.commands.doctor.examine import command

__all__ = ["command"]
