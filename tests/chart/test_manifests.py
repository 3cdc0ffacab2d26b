"""What is installed, object by object."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charalora_operator import names
from charalora_operator.permissions import PERMISSIONS
from charalora_operator.settings import read_settings
from charalora_spec.crd import custom_resource_definition
from charalora_spec.spec import GROUP, PLURAL
from helm import CHART, ROOT, Helm, Manifest, Render, Values

EVERYTHING: Values = {
    "monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}, "dashboards": {"enabled": True}},
    "networkPolicy": {"enabled": True, "trainers": {"namespaces": ["artists"]}},
}
IN_NAMESPACES: Values = {"settings": {"namespaces": ["artists", "studio"]}, "crds": {"install": False}, "rbac": {"aggregate": False}}
SELECTOR = {"app.kubernetes.io/name": "charalora", "app.kubernetes.io/instance": "surtr", "app.kubernetes.io/component": "operator"}
TRAINING = {
    names.NAME: "charalora",
    names.COMPONENT: names.TRAINING,
    names.MANAGED_BY: names.MANAGER,
    names.RESOURCE: "surtr",
    names.ATTEMPT: "1",
}
"""Labels of a training's pod."""


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    """The objects of these kinds, by namespace and name."""
    found = [each for each in objects if each["kind"] in kinds]
    return sorted(found, key=lambda each: (each["metadata"].get("namespace", ""), each["metadata"]["name"]))


def deployment(objects: list[Manifest]) -> Manifest:
    """The operator's Deployment."""
    (found,) = of_kind(objects, "Deployment")
    return found


def pods(objects: list[Manifest]) -> list[Manifest]:
    """Every pod that the chart makes, by its template."""
    return [deployment(objects)["spec"]["template"], *of_kind(objects, "Pod")]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector matches; of expressions only Exists is used."""
    wanted = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    expressions = selector.get("matchExpressions", [])
    return wanted.items() <= labels.items() and all(each["operator"] == "Exists" and each["key"] in labels for each in expressions)


def texts(value: Any) -> Iterator[str]:
    """Every text in an object, keys too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)


def rules(*, own: bool) -> list[dict[str, Any]]:
    """The rules that permissions.py asks for."""
    return [
        {"apiGroups": [each.group], "resources": [each.resource], "verbs": list(each.verbs)}
        for each in PERMISSIONS
        if each.own_namespace == own
    ]


def test_helm_finds_nothing_to_complain_about(helm: Helm) -> None:
    """`helm lint --strict`."""
    ended = helm.run("lint", "--strict", "--kube-version", "1.35", str(CHART))

    assert (0, True) == (ended.returncode, "0 chart(s) failed" in ended.stdout), ended.stdout + ended.stderr


def test_the_chart_has_the_version_of_what_it_installs() -> None:
    """One number, so that the default tag of the images exists."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == chart["appVersion"]


@pytest.mark.parametrize("template", [path for path in CHART.rglob("templates/**/*") if path.is_file()], ids=lambda path: path.name)
def test_a_template_fits_on_a_screen(template: Path) -> None:
    """But for the one that is generated, which is as long as the resource."""
    assert template.name == "crd.yaml" or len(template.read_text().splitlines()) <= 70


@pytest.mark.parametrize("values", [{}, EVERYTHING, IN_NAMESPACES], ids=["default", "everything", "namespaces"])
def test_every_object_says_where_it_belongs(render: Render, values: Values) -> None:
    """Its namespace, unless it has none, and the labels that Helm and people look for."""
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    objects = render(values)

    assert [] == [each["metadata"] for each in objects if (each["kind"] in cluster_wide) == ("namespace" in each["metadata"])]
    assert {("charalora", "surtr", "Helm")} == {
        tuple(each["metadata"]["labels"][f"app.kubernetes.io/{label}"] for label in ("name", "instance", "managed-by")) for each in objects
    }
    places = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(places) == len(set(places))


def test_the_crd_is_the_models(render: Render) -> None:
    """With the chart's labels, and kept when the chart goes."""
    (crd,) = of_kind(render({}), "CustomResourceDefinition")
    metadata = crd.pop("metadata")
    wanted = custom_resource_definition()

    assert wanted.pop("metadata")["name"] == metadata["name"]
    assert {"helm.sh/resource-policy": "keep"} == metadata["annotations"]
    assert wanted == crd


def test_the_crd_can_be_left_to_go_with_the_chart(render: Render) -> None:
    """With `crds.keep: false`."""
    (crd,) = of_kind(render({"crds": {"keep": False}}), "CustomResourceDefinition")

    assert "annotations" not in crd["metadata"]


def test_the_operator_may_do_what_it_needs_everywhere(render: Render) -> None:
    """The table in permissions.py, rule by rule, and nothing else; leases only at home."""
    objects = render({})
    roles = {each["metadata"]["name"]: each["rules"] for each in of_kind(objects, "ClusterRole", "Role")}

    assert rules(own=False) == roles.pop("surtr-charalora")
    assert rules(own=True) == roles.pop("surtr-charalora-own")
    assert {"surtr-charalora-edit", "surtr-charalora-view"} == roles.keys()
    assert [("ClusterRoleBinding", None), ("RoleBinding", "ml")] == [
        (each["kind"], each["metadata"].get("namespace")) for each in of_kind(objects, "ClusterRoleBinding", "RoleBinding")
    ]


def test_the_operator_can_be_kept_to_some_namespaces(render: Render) -> None:
    """Then nothing that is installed is cluster-wide, and the same rules hold in each of them."""
    objects = render(IN_NAMESPACES)
    granted = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): (each["roleRef"]["kind"], each["roleRef"]["name"])
        for each in of_kind(objects, "RoleBinding")
    }
    roles = {(each["metadata"]["namespace"], each["metadata"]["name"]): each["rules"] for each in of_kind(objects, "Role")}

    assert [] == of_kind(objects, "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
    assert roles == {
        ("artists", "surtr-charalora"): rules(own=False),
        ("studio", "surtr-charalora"): rules(own=False),
        ("ml", "surtr-charalora-own"): rules(own=True),
    }
    assert {place: ("Role", place[1]) for place in roles} == granted


def test_every_binding_is_the_operators(render: Render) -> None:
    """Its own account in its own namespace, and no other."""
    for values in ({}, IN_NAMESPACES):
        account = deployment(render(values))["spec"]["template"]["spec"]["serviceAccountName"]
        subjects = [each["subjects"] for each in of_kind(render(values), "RoleBinding", "ClusterRoleBinding")]

        assert {(("ServiceAccount", account, "ml"),)} == {
            tuple((who["kind"], who["name"], who["namespace"]) for who in each) for each in subjects
        }


@pytest.mark.parametrize("values", [{}, EVERYTHING, IN_NAMESPACES], ids=["default", "everything", "namespaces"])
def test_nobody_gets_secrets_or_a_wildcard(render: Render, values: Values) -> None:
    """Not the operator, not the users' roles."""
    granted = [rule for each in of_kind(render(values), "Role", "ClusterRole") for rule in each["rules"]]
    words = {word for rule in granted for word in texts(rule)}

    assert set() == words & {"*", "secrets", "escalate", "bind", "impersonate", "pods/exec"}
    assert {GROUP} == {group for rule in granted if f"{PLURAL}/status" in rule["resources"] for group in rule["apiGroups"]}
    assert [] == [rule for rule in granted if rule["resources"] == ["pods"] and set(rule["verbs"]) - {"get", "list", "watch"}]


def test_who_may_edit_a_namespace_may_train_there(render: Render) -> None:
    """By aggregation; a status is read by users and written by the operator alone."""
    roles = {each["metadata"]["name"]: each for each in of_kind(render({}), "ClusterRole")}
    edit, view = roles["surtr-charalora-edit"], roles["surtr-charalora-view"]
    aggregated = {
        label.rpartition("-")[2]: role["metadata"]["name"]
        for role in (edit, view)
        for label, value in role["metadata"]["labels"].items()
        if "aggregate" in label and value == "true"
    }

    assert {"admin": "surtr-charalora-edit", "edit": "surtr-charalora-edit", "view": "surtr-charalora-view"} == aggregated
    for role in (edit, view):
        assert ["get"] == next(rule["verbs"] for rule in role["rules"] if rule["resources"] == [f"{PLURAL}/status"])


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_pods_meet_the_restricted_standard(render: Render, values: Values) -> None:
    """Each point of the Pod Security standard `restricted`, and a read-only root besides."""
    for pod in pods(render(values)):
        spec = pod["spec"]
        assert (True, 65532, {"type": "RuntimeDefault"}) == tuple(
            spec["securityContext"][key] for key in ("runAsNonRoot", "runAsUser", "seccompProfile")
        )
        assert set() == {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert {"configMap", "emptyDir"} >= {key for volume in spec.get("volumes", []) for key in volume if key != "name"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert [] == [port for port in container.get("ports", []) if "hostPort" in port]


def test_two_operators_start_with_the_settings_file(render: Render) -> None:
    """As the program reads its arguments and its environment."""
    spec = deployment(render({}))["spec"]
    (container,) = spec["template"]["spec"]["containers"]

    assert 2 == spec["replicas"]
    assert ["--settings", "/etc/charalora/settings.json"] == container["args"]
    assert {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"} == {
        each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"]
    }
    assert {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"} == {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }


def test_what_a_release_selects_never_changes(render: Render) -> None:
    """A Deployment's selector cannot be changed: an upgrade would fail. Other values and labels leave it as it is."""
    for values in ({}, {"podLabels": {"team": "ml", "app.kubernetes.io/component": "other"}}):
        spec = deployment(render(values))["spec"]

        assert {"matchLabels": SELECTOR} == spec["selector"]
        assert SELECTOR.items() <= spec["template"]["metadata"]["labels"].items()


def test_the_operator_does_not_watch_itself(render: Render) -> None:
    """Its pods lack the label by which it finds its own."""
    key, _, value = names.OURS.partition("=")

    assert [] == [pod for pod in pods(render({})) if pod["metadata"]["labels"].get(key) == value]


def test_the_settings_are_read_by_the_operators_model(render: Render, tmp_path: Path) -> None:
    """The file that is mounted, with what the chart adds."""
    digest = f"sha256:{'a' * 64}"
    images = {"pullSecrets": ["registry"], "trainer": {"digest": digest}, "preflight": {"repository": "r.example/p", "tag": "7"}}
    (mounted,) = of_kind(render({"images": images, "settings": {"namespaces": ["artists"], "workers": 3}}), "ConfigMap")
    (tmp_path / "settings.json").write_text(mounted["data"]["settings.json"])
    settings = read_settings(tmp_path / "settings.json")

    assert (f"docker.io/charalora/trainer@{digest}", "r.example/p:7") == (settings.trainer_image, settings.preflight_image)
    assert (("registry",), "IfNotPresent") == (settings.image_pull_secrets, settings.image_pull_policy)
    assert (("artists",), 3, "surtr-charalora", "") == (
        settings.namespaces,
        settings.workers,
        settings.lease.name,
        settings.lease.namespace,
    )
    (port,) = deployment(render({}))["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert settings.http.port == port["containerPort"]


def test_other_settings_start_the_operators_again(render: Render) -> None:
    """They are read once, so the pods' template changes with them; nothing else changes it."""
    checksums = [
        deployment(render(values))["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        for values in ({}, {"settings": {"workers": 9}}, {"replicas": 3})
    ]

    assert checksums[0] == checksums[2] != checksums[1]


def test_operators_are_on_different_machines_where_that_is_possible(render: Render) -> None:
    """Those of one rollout; the pods that it replaces do not count."""
    spread = deployment(render({}))["spec"]["template"]["spec"]["topologySpreadConstraints"]

    assert ["kubernetes.io/hostname", "topology.kubernetes.io/zone"] == [each["topologyKey"] for each in spread]
    assert [(["pod-template-hash"], {"matchLabels": SELECTOR})] * 2 == [(each["matchLabelKeys"], each["labelSelector"]) for each in spread]


def test_a_drain_leaves_an_operator(render: Render) -> None:
    """The disruption budget and the Service mean the operators."""
    (budget,) = of_kind(render({}), "PodDisruptionBudget")
    (service,) = of_kind(render({}), "Service")
    labels = deployment(render({}))["spec"]["template"]["metadata"]["labels"]

    assert 1 == budget["spec"]["maxUnavailable"]
    assert selects(budget["spec"]["selector"], labels)
    assert selects(service["spec"]["selector"], labels)
    assert not selects(service["spec"]["selector"], TRAINING)


def test_operators_are_scraped_through_their_service(render: Render) -> None:
    """The monitor finds the Service by its labels and the port by its name."""
    (monitor,) = of_kind(render(EVERYTHING), "ServiceMonitor")
    (service,) = of_kind(render(EVERYTHING), "Service")

    assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert [port["name"] for port in service["spec"]["ports"]] == [each["port"] for each in monitor["spec"]["endpoints"]]


def test_trainings_are_scraped_wherever_they_run(render: Render) -> None:
    """By the labels that the operator gives them; a check has no metrics."""
    (everywhere,) = of_kind(render(EVERYTHING), "PodMonitor")
    (somewhere,) = of_kind(render({**IN_NAMESPACES, **EVERYTHING}), "PodMonitor")

    assert selects(everywhere["spec"]["selector"], TRAINING)
    assert not selects(everywhere["spec"]["selector"], TRAINING | {names.COMPONENT: names.PREFLIGHT})
    assert {"any": True} == everywhere["spec"]["namespaceSelector"]
    assert {"matchNames": ["artists", "studio"]} == somewhere["spec"]["namespaceSelector"]
    assert ["metrics"] == [each["port"] for each in everywhere["spec"]["podMetricsEndpoints"]]


def test_series_have_the_same_labels_without_the_prometheus_operator(render: Render) -> None:
    """Dashboards and alerts need them: what the documentation's scrape jobs add beyond namespace and pod, which monitors always give."""
    operators, trainings = yaml.safe_load((ROOT / "docs" / "prometheus" / "scrape.yml").read_text())["scrape_configs"]
    added = {rule["target_label"]: rule["source_labels"] for rule in trainings["relabel_configs"] if "target_label" in rule}
    (pods,) = of_kind(render(EVERYTHING), "PodMonitor")[0]["spec"]["podMetricsEndpoints"]
    (service,) = of_kind(render(EVERYTHING), "ServiceMonitor")[0]["spec"]["endpoints"]

    assert {"namespace", "pod"} == added.keys() - {rule["targetLabel"] for rule in pods["relabelings"]}
    assert all(added[rule["targetLabel"]] == rule["sourceLabels"] for rule in pods["relabelings"])
    assert operators["honor_labels"]
    assert service["honorLabels"]


def test_the_sidecar_of_grafana_finds_every_dashboard(render: Render) -> None:
    """By its label, wherever it looks; what it reads is the file itself, with the place of the reports."""
    here = {"namespace": "grafana", "filesAt": "https://minio.example.org"}
    maps = [
        one for one in of_kind(render({"monitoring": {"dashboards": {"enabled": True, **here}}}), "ConfigMap") if "dashboard" in str(one)
    ]

    assert {f"charalora-{path.name}" for path in (CHART / "dashboards").iterdir()} == {name for one in maps for name in one["data"]}
    assert {("grafana", "1", "Charalora")} == {
        (one["metadata"]["namespace"], one["metadata"]["labels"]["grafana_dashboard"], one["metadata"]["annotations"]["grafana_folder"])
        for one in maps
    }
    for one in maps:
        for name, text in one["data"].items():
            source = (CHART / "dashboards" / name.removeprefix("charalora-")).read_text()
            assert json.loads(source.replace("https://s3.example.org", "https://minio.example.org")) == json.loads(text)


def test_alerts_are_those_of_the_plain_file(render: Render) -> None:
    """Word for word, templates of Prometheus included; only where the runbooks are is the installer's to say."""
    values = {
        "monitoring": {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "runbooks": "https://wiki.test/clora/"}}
    }
    (rule,) = of_kind(render(values), "PrometheusRule")
    plain = yaml.safe_load(
        (CHART / "files" / "alerts.yaml").read_text().replace("https://charalora.dev/runbooks/", "https://wiki.test/clora/")
    )

    assert plain == rule["spec"]
    assert "prometheus" == rule["metadata"]["labels"]["release"]


def test_policies_are_where_the_pods_are(render: Render) -> None:
    """One for the operators, one in each namespace with trainings; a namespace that is named twice has one."""
    trainers = {"networkPolicy": {"enabled": True, "trainers": {"namespaces": ["artists", "lab"]}}}
    policies = of_kind(render({**IN_NAMESPACES, **trainers}), "NetworkPolicy")

    assert ["artists", "lab", "ml", "studio"] == [each["metadata"]["namespace"] for each in policies]
    assert [True, True, False, True] == [selects(each["spec"]["podSelector"], TRAINING) for each in policies]
    assert {("Ingress", "Egress")} == {tuple(each["spec"]["policyTypes"]) for each in policies}


def test_policies_let_through_what_is_needed(render: Render) -> None:
    """Port by port: metrics in; names, API server, storage, trainings' metrics and each other out."""
    operators, trainings = (
        next(each["spec"] for each in of_kind(render(EVERYTHING), "NetworkPolicy") if each["metadata"]["namespace"] == where)
        for where in ("ml", "artists")
    )

    def ports(allowed: list[dict[str, Any]]) -> list[list[int]]:
        return [sorted({port["port"] for port in each.get("ports", [])}) for each in allowed]

    assert ([[8080]], [[53], [443, 6443], [9400]]) == (ports(operators["ingress"]), ports(operators["egress"]))
    assert ([[9400], []], [[53], [443], []]) == (ports(trainings["ingress"]), ports(trainings["egress"]))
    assert selects(operators["egress"][2]["to"][0]["podSelector"], TRAINING)
    assert selects(trainings["egress"][2]["to"][0]["podSelector"], TRAINING)
    assert any(selects(who.get("podSelector", {}), SELECTOR) for who in trainings["ingress"][0]["from"])


def test_metrics_can_be_kept_to_the_monitoring_namespace(render: Render) -> None:
    """Then it, the operator and `helm test` come in."""
    values = {"networkPolicy": {"enabled": True, "monitoringNamespaces": ["prometheus"], "trainers": {"namespaces": ["artists"]}}}
    for policy in of_kind(render(values), "NetworkPolicy"):
        monitoring, ours = policy["spec"]["ingress"][0]["from"]

        assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "prometheus"}}} == monitoring
        assert "surtr" == ours["podSelector"]["matchLabels"]["app.kubernetes.io/instance"]


def test_the_test_asks_the_operators_service(render: Render) -> None:
    """`helm test` runs in the operator's image, with its account."""
    (test,) = of_kind(render({}), "Pod")
    (container,) = test["spec"]["containers"]
    operator = deployment(render({}))["spec"]["template"]["spec"]
    (service,) = of_kind(render({}), "Service")
    environment = {each["name"]: each["value"] for each in container["env"]}

    assert "test" == test["metadata"]["annotations"]["helm.sh/hook"]
    assert (operator["containers"][0]["image"], operator["serviceAccountName"]) == (container["image"], test["spec"]["serviceAccountName"])
    assert {"READY_URL": f"http://{service['metadata']['name']}.ml.svc:8080/readyz", "WATCHED": "*"} == environment
    assert (CHART / "files" / "ready.py").read_text().strip() == container["args"][0].strip()


def test_the_development_clusters_values_fit(render: Render) -> None:
    """They train on CPUs, and no image is fetched."""
    values = yaml.safe_load((CHART / "ci" / "devcluster-values.yaml").read_text())
    (mounted,) = of_kind(render(values), "ConfigMap")
    settings = json.loads(mounted["data"]["settings.json"])

    assert (True, "Never") == (settings["trainOnCpu"], settings["imagePullPolicy"])
    assert {"Never"} == {container["imagePullPolicy"] for pod in pods(render(values)) for container in pod["spec"]["containers"]}
