"""What can go wrong with a private server; every message names the way out."""


class ServerMissing(RuntimeError):
    """Permanent: this machine has no usable server; the message says what to install or to set."""


class StartFailed(RuntimeError):
    """A server ended or kept silent while starting; the message ends with the tail of its log."""
