"""On Redis, gives back what a lost worker held as soon as the app's options say, with any kombu.

kombu knows these options since 5.7. Before, it passes over them without a word and looks for such
messages every 100 seconds, however short the visibility timeout is.
"""

from typing import Any

from celery import Celery, bootsteps

_KOMBU_DEFAULTS = {"unacked_restore_interval": 10, "unacked_restore_throttle": 10}


def passed_over(app: Celery) -> bool:
    """Whether the app says how often to look, and this kombu does not listen."""
    transport: Any = app.connection_for_read().transport  # kombu types what all transports have
    told = _KOMBU_DEFAULTS.keys() & app.conf.broker_transport_options.keys()
    return not told <= set(transport.Channel.from_transport_options)


class RestoreUnacked(bootsteps.StartStopStep):
    """Has kombu look as often as kombu 5.7 would, while the worker is connected."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _looking: Any = None

    def start(self, parent: Any) -> None:
        """Look now and again; the first look is kombu's own, as the worker connects."""
        options = {**_KOMBU_DEFAULTS, **parent.app.conf.broker_transport_options}
        seconds = options["unacked_restore_interval"] * (options["unacked_restore_throttle"] or 1)
        channel = parent.task_consumer.channel

        def look() -> None:
            channel.qos.restore_visible(num=channel.unacked_restore_limit, interval=1)

        self._looking = parent.timer.call_repeatedly(seconds, look)

    def stop(self, _: Any) -> None:
        """End with the connection, whose channel it is."""
        if self._looking is not None:
            self._looking.cancel()
