"""The chart in deploy/helm, rendered by Helm's own engine: valid, harmless, and as the base is.

`make test-deploy` makes the environment of the engine, a package of Helm 4 as a library. No cluster
is needed, and none was there.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import pytest
import yaml

from outbox_console import settings as console_settings
from tests.containers.test_kubernetes import run
from tests.deploy.board import ROOT
from tests.deploy.test_kubernetes import VERSIONS
from tests.deploy.test_kubernetes import named as in_the_base
from tests.deploy.test_kubernetes_console import resources as console_resources

CHART: Final = ROOT / "deploy/helm"
PYTHON: Final = ROOT / ".helm/bin/python"
RENDER: Final = """
import json, sys
from helm_python import Chart, lint
values = json.load(sys.stdin)
report = lint(sys.argv[1], values, strict=True)
with Chart.load(sys.argv[1]) as chart:
    files = chart.render(values=values, name=sys.argv[2], namespace="shop")
json.dump([files, report], sys.stdout)
"""
#: Kinds of operators, with the packages of classes by which they validate themselves.
MODELS: Final = {
    "ServiceMonitor": ("@kubernetes-models/prometheus-operator@6.0.0", "monitoring.coreos.com/v1"),
    "ScaledObject": ("@kubernetes-models/keda@2.0.0", "keda.sh/v1alpha1"),
}
#: The one value without which no image would be found.
LEAST: Final[dict[str, Any]] = {"images": {"registry": "registry.example.com/"}}
EVERYTHING: Final[dict[str, Any]] = {
    "console": {"enabled": True},
    "secret": {"brokerTransportOptions": "transport-options", "inboxUrl": "inbox-url"},
    "monitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "keda": {"enabled": True},
    "images": {"registry": "registry.example.com/", "pullSecrets": [{"name": "key"}]},
    "relay": {
        "settings": {
            "OUTBOX_FENCE": "standby:1",
            "OUTBOX_WINDOW": 1_000_000,
            "OUTBOX_SCHEMA": "shop",
        },
        "podAnnotations": {"team": "shop"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "priorityClassName": "high",
    },
}

Resources = list[dict[str, Any]]
Rendered = tuple[Resources, dict[str, Any]]


def render(values: dict[str, Any], release: str = "outbox") -> Rendered:
    """What a release becomes, and what Helm's linter says of the chart."""
    if not PYTHON.exists():
        pytest.skip("no Helm: make test-deploy has it")
    done = subprocess.run(
        [PYTHON, "-c", RENDER, CHART, release],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr)
    files, report = json.loads(done.stdout)
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    report["notes"] = "".join(text for name, text in files.items() if name.endswith("NOTES.txt"))
    return [each for text in texts for each in yaml.safe_load_all(text) if each], report


def named(resources: Resources, kind: str, name: str = "outbox-relay") -> dict[str, Any]:
    """The one of that kind and name."""
    (found,) = (r for r in resources if (r["kind"], r["metadata"]["name"]) == (kind, name))
    return found


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["as it is", "everything"])
def test_every_resource_is_valid(values: dict[str, Any]) -> None:
    """By Kubernetes' own schemas; Helm's linter finds nothing, warnings included."""
    resources, report = render(values)

    assert not report["errors"]
    assert [each for each in report["messages"] if each["severity"] > 1] == []
    for resource in resources:
        for version in VERSIONS:
            if resource["kind"] not in MODELS:
                kubernetes_validate.validate(resource, version, strict=True)


def test_a_release_called_outbox_is_what_the_base_is() -> None:
    """The pods have the same rights, probes and files; what else it has is said by values."""
    resources, _ = render(LEAST)

    pod = named(resources, "Deployment")["spec"]["template"]["spec"]
    base = in_the_base("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"] == base["securityContext"]
    assert pod["volumes"] == base["volumes"]
    [ours], [theirs] = pod["containers"], base["containers"]
    for part in ("securityContext", "resources", "volumeMounts", "ports"):
        assert ours[part] == theirs[part]
    for part in ("livenessProbe", "readinessProbe"):
        assert ours[part] == theirs[part]
    for kind, name, parts in (
        ("PodDisruptionBudget", "outbox-relay", ("maxUnavailable", "unhealthyPodEvictionPolicy")),
        ("Job", "outbox-migrate", ("backoffLimit", "activeDeadlineSeconds")),
        ("NetworkPolicy", "outbox-relay", ("egress",)),
        ("NetworkPolicy", "outbox-migrate", ("egress",)),
    ):
        spec, expected = named(resources, kind, name)["spec"], in_the_base(kind, name)["spec"]
        assert [spec[part] for part in parts] == [expected[part] for part in parts]
    job = named(resources, "Job", "outbox-migrate")["spec"]["template"]["spec"]
    base = in_the_base("Job", "outbox-migrate")["spec"]["template"]["spec"]
    steps = [(each["args"], each["securityContext"]) for each in containers(job)]
    assert steps == [(each["args"], each["securityContext"]) for each in containers(base)]


def test_the_console_is_what_the_base_is() -> None:
    """The same settings, files and ways out; but for where people stand, and whom it lets in."""
    resources, _ = render({**LEAST, "console": {"enabled": True}})
    base = {(each["kind"], each["metadata"]["name"]): each for each in console_resources()}

    ours = named(resources, "Deployment", "outbox-console")["spec"]["template"]["spec"]
    theirs = base["Deployment", "outbox-console"]["spec"]["template"]["spec"]
    [mine], [other] = ours["containers"], theirs["containers"]
    own = {"OUTBOX_CONSOLE_ADDRESS", "OUTBOX_CONSOLE_ROLE", "OUTBOX_CONSOLE_PEOPLE_FILE"}
    assert {each["name"] for each in mine["env"]} >= {each["name"] for each in other["env"]}
    assert {e["name"]: e["value"] for e in mine["env"] if e["name"] not in own} == {
        e["name"]: e["value"] for e in other["env"] if e["name"] not in own
    }
    for part in ("ports", "livenessProbe", "readinessProbe", "resources", "securityContext"):
        assert mine[part] == other[part]
    assert ours["terminationGracePeriodSeconds"] == theirs["terminationGracePeriodSeconds"]
    policy = named(resources, "NetworkPolicy", "outbox-console")["spec"]["egress"]
    expected = base["NetworkPolicy", "outbox-console"]["spec"]["egress"]
    assert [rule["ports"] for rule in policy] == [rule["ports"] for rule in expected]
    way_in = named(resources, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert [list(each) for each in way_in] == [["namespaceSelector"], ["podSelector"]]


def test_a_console_of_the_chart_would_start() -> None:
    """Its settings are understood, whichever way people sign in, and its files are mounted."""
    issuer = {
        "OUTBOX_CONSOLE_OIDC_ISSUER": "https://sso.example.com",
        "OUTBOX_CONSOLE_OIDC_CLIENT_ID": "outbox",
        "OUTBOX_CONSOLE_OIDC_ROLES": "ops=operator",
        "OUTBOX_CONSOLE_URL": "https://outbox.example.com",
    }
    ways: tuple[dict[str, Any], ...] = (
        {},
        {"settings": issuer},
        {"userHeader": "X-User", "proxies": "10.0.0.0/8"},
    )
    for way in ways:
        resources, _ = render({**EVERYTHING, "console": {"enabled": True, **way}})
        pod = named(resources, "Deployment", "outbox-console")["spec"]["template"]["spec"]
        given = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
        [volume] = pod["volumes"]
        mounted = {f"/run/secrets/outbox/{item['path']}" for item in volume["secret"]["items"]}
        words = " ".join(given.values()).replace("=", " ").split()
        assert {word for word in words if word.startswith("/run/secrets")} == mounted
        given.pop("OUTBOX_CONSOLE_OIDC_CLIENT_SECRET_FILE", None)
        secret = {"OUTBOX_CONSOLE_OIDC_CLIENT_SECRET": "in the file"} if "settings" in way else {}

        read = console_settings.read({**given, **secret})

        assert read.knows_people
        assert read.schema == "shop"
        assert "OUTBOX_INBOX_URL_FILE=/run/secrets/outbox/inbox-url" in read.doctor
        ports = [
            port["port"]
            for rule in named(resources, "NetworkPolicy", "outbox-console")["spec"]["egress"]
            for port in rule["ports"]
        ]
        assert (443 in ports) == ("settings" in way)


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All of a pod, in the order in which they run."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def test_no_container_has_rights_and_secrets_are_files() -> None:
    """In all that runs, the console included."""
    resources, _ = render(EVERYTHING)
    pods = [r["spec"]["template"]["spec"] for r in resources if r["kind"] in ("Deployment", "Job")]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        (volume,) = pod["volumes"]
        files = {f"/run/secrets/outbox/{item['path']}" for item in volume["secret"]["items"]}
        named_files = set()
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["image"].startswith("registry.example.com/celery-outbox/")
            named_files |= {e["value"] for e in container["env"] if e["name"].endswith("_FILE")}
            words = " ".join(e["value"] for e in container["env"] if e["name"].endswith("_DOCTOR"))
            named_files |= {w.partition("=")[2] for w in words.split() if "/run/secrets" in w}
        assert named_files == files


def test_secrets_that_a_relay_may_need_are_files() -> None:
    """Options of the transport, and the address of an inbox elsewhere, where keys are given."""
    [container] = named(render(EVERYTHING)[0], "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    given = {each["name"]: each["value"] for each in container["env"]}

    assert given["OUTBOX_BROKER_TRANSPORT_OPTIONS_FILE"].endswith("/transport-options")
    assert given["OUTBOX_INBOX_URL_FILE"].endswith("/inbox-url")
    assert given["OUTBOX_WINDOW"] == "1000000"


def test_a_file_of_many_databases_stands_for_the_one() -> None:
    """A relay takes one or the other."""
    values = {**LEAST, "secret": {"databases": "outboxes"}}
    [container] = named(render(values)[0], "Deployment")["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}

    assert given["OUTBOX_DATABASES_FILE"].endswith("/outboxes")
    assert "OUTBOX_DATABASE_URL_FILE" not in given
    assert given["OUTBOX_BROKER_URL_FILE"].endswith("/broker-url")


def test_values_stay_text() -> None:
    """Names that YAML would read as numbers or truths, and characters that it would trip over."""
    values: dict[str, Any] = {
        "images": {"registry": "registry.example.com/", "tag": "1.10"},
        "secret": {"name": "123", "relayDatabaseUrl": "0x10", "brokerUrl": "true"},
        "relay": {
            "settings": {"OUTBOX_SCHEMA": "null", "OUTBOX_FENCE": 'a: "b" # c'},
            "nodeSelector": {"disk": "yes"},
            "podAnnotations": {"team": "7"},
            "priorityClassName": "on",
        },
        "network": {"prometheusNamespace": "42", "consoleNamespace": "1e3"},
        "console": {"enabled": True, "userHeader": "X-User", "proxies": "10.0.0.1, ::1"},
    }
    resources, _ = render(values)

    for resource in resources:
        kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)
    pod = named(resources, "Deployment")["spec"]["template"]["spec"]
    given = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    assert pod["containers"][0]["image"] == "registry.example.com/celery-outbox/relay:1.10"
    assert pod["volumes"][0]["secret"]["secretName"] == "123"
    assert given["OUTBOX_SCHEMA"] == "null"
    assert given["OUTBOX_FENCE"] == 'a: "b" # c'


@pytest.mark.parametrize("release", ["r" * 53, "outbox-" + "r" * 46, "a" * 45 + "-" + "b" * 7])
def test_the_longest_release_has_names_that_kubernetes_takes(release: str) -> None:
    """63 characters, as a Service, a label and a Job's pods have at most; and none ends oddly."""
    resources, _ = render(EVERYTHING, release)

    names = {resource["metadata"]["name"] for resource in resources}
    labels = {
        value for resource in resources for value in resource["metadata"].get("labels", {}).values()
    }
    assert [name for name in names if not re.fullmatch("[a-z][a-z0-9-]{0,61}[a-z0-9]", name)] == []
    assert [value for value in labels if len(value) > 63] == []
    assert {name.rpartition("-")[2] for name in names} == {"relay", "migrate", "console"}


def test_the_notes_lead_to_the_doctor() -> None:
    """The command, as it is to be typed."""
    _, report = render(LEAST, "billing")

    assert (
        "kubectl exec --namespace shop deploy/billing-outbox-relay -- outbox-relay doctor"
        in (report["notes"])
    )


def test_hooks_leave_nothing_behind() -> None:
    """What Helm does not remove with the release is gone when the hook has done its work."""
    resources, _ = render(EVERYTHING)
    notes = [each["metadata"].get("annotations", {}) for each in resources]
    policies = {each.get("helm.sh/hook-delete-policy") for each in notes if "helm.sh/hook" in each}

    assert policies == {"before-hook-creation,hook-succeeded"}


def test_migrations_are_done_before_relays_are_replaced() -> None:
    """As a hook, which the network lets through, with the schema that the relay has."""
    resources, _ = render(EVERYTHING)
    job, policy = (named(resources, kind, "outbox-migrate") for kind in ("Job", "NetworkPolicy"))

    hooks = [each["metadata"]["annotations"] for each in (policy, job)]
    assert {each["helm.sh/hook"] for each in hooks} == {"pre-install,pre-upgrade"}
    assert int(hooks[0]["helm.sh/hook-weight"]) < int(hooks[1]["helm.sh/hook-weight"])
    for container in containers(job["spec"]["template"]["spec"]):
        assert {"name": "OUTBOX_SCHEMA", "value": "shop"} in container["env"]


def test_two_releases_do_not_meet() -> None:
    """Each selects its own pods, and is a job of its own in Prometheus."""
    for release in ("outbox", "billing"):
        resources, _ = render(EVERYTHING, release)
        name = "outbox" if release == "outbox" else "billing-outbox"
        chosen = [named(resources, "Service", f"{name}-relay")["spec"]["selector"]]
        for kind in ("Deployment", "NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor"):
            spec = named(resources, kind, f"{name}-relay")["spec"]
            chosen.append((spec.get("podSelector") or spec["selector"])["matchLabels"])
        assert {each["app.kubernetes.io/instance"] for each in chosen} == {release}
        assert {each["app.kubernetes.io/name"] for each in chosen} == {"outbox-relay"}
        service = named(resources, "Service", f"{name}-relay")["metadata"]["labels"]
        monitor = named(resources, "ServiceMonitor", f"{name}-relay")["spec"]
        assert service[monitor["jobLabel"]] == f"{name}-relay"


def test_probes_survive_a_fail_over() -> None:
    """A minute of a loop that stands still, which an outage never is, until a pod is restarted."""
    resources, _ = render(EVERYTHING)
    for name in ("outbox-relay", "outbox-console"):
        deployment = named(resources, "Deployment", name)
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        probe = container["livenessProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 60
        assert probe["httpGet"]["path"] in ("/livez", "/healthz")
    pod = named(resources, "Deployment")["spec"]["template"]["spec"]
    environment = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
    assert environment["OUTBOX_GRACE_PERIOD"] == "25s"
    assert pod["terminationGracePeriodSeconds"] == 30


def test_the_scaler_decides_how_many_there_are() -> None:
    """A number in the deployment would undo that with each upgrade."""
    assert "replicas" not in named(render(EVERYTHING)[0], "Deployment")["spec"]
    assert named(render(LEAST)[0], "Deployment")["spec"]["replicas"] == 2


#: What relays show, and the lag that the scaler sees.
LAGS: Final = [
    ("some lag", {"a": "42", "b": "41"}, 42),
    ("no rows", {"a": "0", "b": "0"}, 0),
    ("the database away", {"a": "NaN", "b": "NaN"}, 0),
    ("away for one of them", {"a": "NaN", "b": "7"}, 7),
    ("no relay at all", {}, 0),
]


def test_what_the_scaler_sees(promtool: Path, tmp_path: Path) -> None:
    """Without rows, and while the database is away, no lag: relays stay as few as they may be."""
    trigger = named(render(EVERYTHING)[0], "ScaledObject")["spec"]["triggers"][0]["metadata"]
    series = 'outbox_oldest_pending_age_seconds{{job="outbox-relay", instance="{}"}}'
    tests = [
        {
            "name": name,
            "interval": "15s",
            "input_series": [
                {"series": series.format(instance), "values": value}
                for instance, value in shown.items()
            ],
            "promql_expr_test": [
                {
                    "expr": trigger["query"],
                    "eval_time": "0s",
                    "exp_samples": [{"labels": "{}", "value": lag}],
                }
            ],
        }
        for name, shown, lag in LAGS
    ]
    file = tmp_path / "lags.yaml"
    file.write_text(yaml.safe_dump({"tests": tests}))

    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_traces_have_a_way_out() -> None:
    """To a collector, where they are on; the usual variables are settings like others."""
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.monitoring:4318"}
    for tracing, open_ in (("on", True), ("off", False)):
        settings = {"OUTBOX_TRACING": tracing, **collector}
        resources, _ = render({**LEAST, "relay": {"settings": settings}})
        _, reached = named(resources, "NetworkPolicy", "outbox-relay")["spec"]["egress"]
        assert ({"protocol": "TCP", "port": 4318} in reached["ports"]) is open_
        pod = named(resources, "Deployment", "outbox-relay")["spec"]["template"]["spec"]
        env = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        assert settings.items() <= env.items()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"relay": {"replica": 3}}, "replica"),
        ({"relay": {"settings": {"OUTBOX_BROKER_URL": "amqp://"}}}, "OUTBOX_BROKER_URL"),
        ({"relay": {"settings": {"WINDOW": "1"}}}, "WINDOW"),
        ({"relay": {"settings": {"OTEL_EXPORTER_OTLP_HEADERS": "key=1"}}}, "OTLP_HEADERS"),
        ({"images": {"registry": "registry.example.com"}}, "registry"),
        ({"console": {"enabled": True, "userHeader": "X-User"}}, "proxies"),
        ({"keda": {"lagSeconds": 0}}, "lagSeconds"),
        ({"keda": {"enabled": True, "minReplicas": 7}}, "keda.maxReplicas is 6, less than"),
        ({"images": {"registry": ""}}, "images.registry is not set"),
        ({"secret": {"brokerUrl": "a b"}}, "brokerUrl"),
        ({"console": {"settings": {"OUTBOX_CONSOLE_ROLE": "x"}}}, "OUTBOX_CONSOLE_ROLE"),
        ({"migrate": {"deadlineSeconds": 0}}, "deadlineSeconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused(values: dict[str, Any], complaint: str) -> None:
    """By the schema of the values, which names it."""
    with pytest.raises(ValueError, match=complaint):
        render({**LEAST, **values})


@pytest.fixture
def models(tmp_path: Path) -> Callable[[str], Path]:
    """A folder with an operator's models."""

    def install(package: str) -> Path:
        options = ("--no-audit", "--no-fund", "--ignore-scripts")
        done = run("npm", "install", *options, package, folder=tmp_path)
        if done.returncode != 0:
            pytest.skip(f"{package} is not to be had: {done.stderr.strip().splitlines()[-1]}")
        return tmp_path

    return install


@pytest.mark.parametrize("kind", MODELS)
def test_operators_take_their_resources(models: Callable[[str], Path], kind: str) -> None:
    """By their own schemas, which would not take just anything."""
    package, version = MODELS[kind]
    resource = named(render(EVERYTHING)[0], kind)
    folder = models(package)
    script = f"""
    import("{package.rpartition("@")[0]}/{version}").then((models) =>
      new models.{kind}(JSON.parse(require("fs").readFileSync(0))).validate());
    """
    done = run("node", "-e", script, folder=folder, entered=json.dumps(resource))
    assert done.returncode == 0, done.stderr

    broken = {**resource, "spec": {**resource["spec"], "selector": 15, "scaleTargetRef": 15}}
    assert run("node", "-e", script, folder=folder, entered=json.dumps(broken)).returncode != 0
