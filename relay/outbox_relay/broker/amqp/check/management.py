"""What only RabbitMQ's management API tells: policies, bindings and alarms. Often it is closed."""

import base64
import http.client
import json
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote
from urllib.request import Request, urlopen

from kombu.utils.url import parse_url

TIMEOUT: Final = 3.0


class Unavailable(Exception):
    """Transient: the API is closed, off or forbidden; what it would tell was not checked."""


@dataclass(frozen=True, slots=True, repr=False)
class Management:
    """The API of one broker, asked with the broker's own user."""

    base: str
    user: str
    password: str
    vhost: str

    @classmethod
    def of(cls, broker_url: str, base: str | None) -> "Management":
        """The API at `base`, else at the broker's host, port 15672 (15671 with TLS)."""
        parts = parse_url(broker_url)
        secure = broker_url.startswith("amqps://")
        usual = f"http{'s' * secure}://{parts['hostname']}:{15671 if secure else 15672}"
        vhost = parts["virtual_host"] or "/"
        user, password = parts["userid"] or "guest", parts["password"] or "guest"
        return cls(base or usual, user, password, unquote(vhost))

    def alarms(self) -> list[str]:
        """The nodes that have stopped accepting messages, and why."""
        return [
            f"{node['name']} ({kind})"
            for node in self._get("nodes")
            for kind in ("mem_alarm", "disk_free_alarm")
            if node.get(kind)
        ]

    def queue_policy(self, queue: str) -> dict[str, Any]:
        """The effective policy on a queue, operator policies included."""
        found = self._get("queues", self.vhost, queue)
        if "effective_policy_definition" in found:
            return dict(found["effective_policy_definition"] or {})
        # What the API knows of an idle queue may be long in coming; policies it knows at once.
        return self._strongest("policies", queue) | self._strongest("operator-policies", queue)

    def _strongest(self, kind: str, queue: str) -> dict[str, Any]:
        """The definition of the policy with the highest priority among those that fit."""
        fitting = [
            policy
            for policy in self._get(kind, self.vhost)
            if policy["apply-to"] != "exchanges" and re.search(policy["pattern"], queue)
        ]
        strongest = max(fitting, key=lambda policy: int(policy["priority"]), default=None)
        return dict(strongest["definition"]) if strongest else {}

    def exchange_type(self, exchange: str) -> str:
        """direct, fanout, topic, headers, or a plugin's."""
        return str(self._get("exchanges", self.vhost, exchange)["type"])

    def binding_keys(self, exchange: str) -> list[str]:
        """The routing keys of everything bound to an exchange."""
        found = self._get("exchanges", self.vhost, exchange, "bindings", "source")
        return [str(binding["routing_key"]) for binding in found]

    def bound_queues(self, exchange: str) -> list[tuple[str, str]]:
        """The routing key and the queue of every binding of an exchange to a queue."""
        found = self._get("exchanges", self.vhost, exchange, "bindings", "source")
        return [
            (str(binding["routing_key"]), str(binding["destination"]))
            for binding in found
            if binding["destination_type"] == "queue"
        ]

    def deprecated_features_used(self) -> list[str]:
        """Features in use that a later RabbitMQ will not have; RabbitMQ 4 and newer tell."""
        return sorted(str(each["name"]) for each in self._get("deprecated-features", "used"))

    def _get(self, *path: str) -> Any:
        url = f"{self.base}/api/{'/'.join(quote(part, safe='') for part in path)}"
        secret = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        try:
            with urlopen(
                Request(url, headers={"Authorization": f"Basic {secret}"}), timeout=TIMEOUT
            ) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise Unavailable(f"{self.base} answered {error.code} {error.reason}") from error
        except URLError as error:
            raise Unavailable(f"{self.base} is not reachable: {error.reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.base} is not RabbitMQ's management API: {error}") from error
