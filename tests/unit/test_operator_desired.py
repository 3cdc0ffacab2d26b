"""The manifests that a resource becomes."""

import json
from typing import Any

import pytest

from charalora_operator import desired, names
from charalora_operator.model import Manifest
from charalora_operator.settings import LogSettings, Settings
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.problems import read_resource
from operator_world import DIGEST, SETTINGS, World


def made(settings: Settings = SETTINGS, **overrides: Any) -> dict[str, Manifest]:
    """All that a training needs, by kind and, for Jobs, by component."""
    world = World(settings=settings)
    world.change(**overrides)
    assert world.run is not None
    manifests = [
        *desired.manifests_of_check(world.resource, world.run, settings),
        *desired.manifests_of_attempt(world.resource, world.run, settings, 1, DIGEST, None),
    ]
    return {
        manifest["metadata"]["labels"].get(names.COMPONENT, manifest["kind"]) + "/" + manifest["kind"]: manifest for manifest in manifests
    }


def pod_of(manifest: Manifest) -> Manifest:
    """The pod of a Job."""
    return dict(manifest["spec"]["template"]["spec"])


def container_of(manifest: Manifest) -> Manifest:
    """The container of a Job's pod."""
    return dict(pod_of(manifest)["containers"][0])


def environment(manifest: Manifest) -> dict[str, Any]:
    """The container's variables."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container_of(manifest)["env"]}


CHECK, TRAIN, SERVICE, CONFIG = "preflight/Job", "training/Job", "training/Service", "ConfigMap/ConfigMap"


def test_the_same_resource_gives_the_same_manifests() -> None:
    assert made() == made()


def test_every_object_belongs_to_the_resource_and_is_labelled() -> None:
    for manifest in made(resources__nodes=2).values():
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert ("CharacterLora", "surtr", "uid-1", True) == (owner["kind"], owner["name"], owner["uid"], owner["controller"])
        assert "artists" == manifest["metadata"]["namespace"]
        assert {names.RESOURCE: "surtr", names.MANAGED_BY: names.MANAGER}.items() <= manifest["metadata"]["labels"].items()


def test_the_pods_read_the_resource_with_its_defaults_and_without_what_concerns_the_cluster_alone() -> None:
    content = json.loads(made(run__retries=7, scheduling__queue_name="training")[CONFIG]["data"]["run.json"])

    assert 1000 == content["spec"]["training"]["steps"]
    assert not {"run", "scheduling"} & content["spec"].keys()
    assert "surtr_arknights" == read_resource(content, "run.json").spec.character.name


def test_the_configuration_is_named_after_its_content() -> None:
    assert made()[CONFIG]["metadata"]["name"] != made(training__steps=700)[CONFIG]["metadata"]["name"]
    assert made()[CONFIG]["metadata"]["name"] == made(run__suspend=True)[CONFIG]["metadata"]["name"]


def test_the_check_claims_no_gpu() -> None:
    asked = container_of(made()[CHECK])["resources"]

    assert {"cpu": "1", "memory": "2Gi"} == asked["requests"] == asked["limits"]
    assert "charalora/preflight:1" == container_of(made()[CHECK])["image"]


def test_the_check_knows_how_many_will_train_together() -> None:
    arguments = container_of(made(resources__nodes=2, resources__gpus=4)[CHECK])["args"]

    assert ["--processes", "8"] == arguments[2:4]


def test_the_training_claims_what_was_asked_for_and_no_more() -> None:
    asked = container_of(made(resources__gpus=3, resources__cpu="6", resources__memory="24Gi")[TRAIN])["resources"]

    assert {"cpu": "6", "memory": "24Gi", "nvidia.com/gpu": "3"} == asked["requests"] == asked["limits"]


def test_without_gpus_none_is_claimed_and_the_trainer_is_told() -> None:
    training = made(resources__gpus=0)[TRAIN]

    assert {"cpu": "8", "memory": "32Gi"} == container_of(training)["resources"]["requests"]
    assert "cpu" == environment(training)["CHARALORA_DEVICE"]
    assert ["--processes", "1"] == container_of(training)["args"][2:4]


def test_a_cluster_whose_gpus_are_only_counted_trains_on_cpus() -> None:
    settings = SETTINGS.model_copy(update={"train_on_cpu": True})
    training = made(settings, resources__gpus=2)[TRAIN]

    assert "2" == container_of(training)["resources"]["requests"]["nvidia.com/gpu"]
    assert "cpu" == environment(training)["CHARALORA_DEVICE"]
    assert "CHARALORA_GPUS" not in environment(training)
    assert "2" == environment(made(resources__gpus=2)[TRAIN])["CHARALORA_GPUS"]


def test_one_node_needs_no_service_and_no_rendezvous() -> None:
    objects = made()

    assert SERVICE not in objects
    assert "--nodes" not in container_of(objects[TRAIN])["args"]


def test_several_nodes_meet_at_the_first_ones_name_before_anybody_is_ready() -> None:
    objects = made(resources__nodes=2, resources__gpus=1)
    service, training = objects[SERVICE], objects[TRAIN]
    arguments = container_of(training)["args"]

    assert service["spec"]["publishNotReadyAddresses"]
    assert "None" == service["spec"]["clusterIP"]
    assert {"batch.kubernetes.io/job-name": training["metadata"]["name"]} == service["spec"]["selector"]
    assert service["metadata"]["name"] == pod_of(training)["subdomain"]
    assert "surtr-a1-0.surtr-a1.artists.svc:29500" == arguments[arguments.index("--rendezvous") + 1]
    assert "$(JOB_COMPLETION_INDEX)" == arguments[arguments.index("--node-rank") + 1]
    assert "uid-1-1" == arguments[arguments.index("--run-id") + 1]
    assert (2, 2, "Indexed") == (training["spec"]["completions"], training["spec"]["parallelism"], training["spec"]["completionMode"])
    assert [{"succeededIndexes": "0"}] == training["spec"]["successPolicy"]["rules"]


def test_a_service_begins_with_a_letter_whatever_the_character_is_called() -> None:
    """Kubernetes wants that of a Service and of nothing else; the pods look for each other under its name."""
    objects = made(metadata__name="2b", resources__nodes=2)

    assert ("2b-a1", "n-2b-a1") == (objects[TRAIN]["metadata"]["name"], objects[SERVICE]["metadata"]["name"])
    assert "n-2b-a1" == pod_of(objects[TRAIN])["subdomain"]
    assert "2b-a1-0.n-2b-a1.artists.svc:29500" in container_of(objects[TRAIN])["args"]
    assert {"batch.kubernetes.io/job-name": "2b-a1"} == objects[SERVICE]["spec"]["selector"]


def test_nodes_are_machines() -> None:
    (rule,) = pod_of(made(resources__nodes=2)[TRAIN])["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]

    assert "kubernetes.io/hostname" == rule["topologyKey"]


def test_no_pod_is_ever_restarted_in_an_attempt() -> None:
    spec = made()[TRAIN]["spec"]

    assert (0, "Failed", "Never") == (spec["backoffLimit"], spec["podReplacementPolicy"], spec["template"]["spec"]["restartPolicy"])
    assert "FailJob" == spec["podFailurePolicy"]["rules"][0]["action"]


def test_the_check_is_repeated_by_the_cluster_unless_that_is_useless() -> None:
    spec = made()[CHECK]["spec"]
    codes = spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]

    assert 3 == spec["backoffLimit"]
    assert Outcome.DATASET_INVALID.exit_code in codes
    assert Outcome.STORAGE_UNREACHABLE.exit_code not in codes


@pytest.mark.parametrize("job", [CHECK, TRAIN])
def test_final_exit_codes_are_those_of_the_outcomes(job: str) -> None:
    rule = made()[job]["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]
    final = [outcome.exit_code for outcome in Outcome if outcome.retry is Retry.NEVER and outcome.exit_code]

    assert sorted(final) == sorted(rule["values"])
    assert container_of(made()[job])["name"] == rule["containerName"]


@pytest.mark.parametrize("job", [CHECK, TRAIN])
def test_pods_meet_the_restricted_standard_and_hold_no_token(job: str) -> None:
    pod, container = pod_of(made()[job]), container_of(made()[job])

    assert pod["automountServiceAccountToken"] is False
    assert (True, {"type": "RuntimeDefault"}) == (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["seccompProfile"])
    assert {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}} == container[
        "securityContext"
    ]
    assert {"run", "work", "tmp"} <= {mount["name"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("job", [CHECK, TRAIN])
def test_credentials_come_by_reference(job: str) -> None:
    given = environment(made(storage__secret_name="mine")[job])  # noqa: S106 - a name

    assert {"secretKeyRef": {"name": "mine", "key": "AWS_ACCESS_KEY_ID"}} == given["AWS_ACCESS_KEY_ID"]
    assert {"secretKeyRef": {"name": "mine", "key": "AWS_ENDPOINT_URL", "optional": True}} == given["AWS_ENDPOINT_URL"]


def test_without_a_secret_the_service_account_counts() -> None:
    given = environment(made(storage__secret_name="")[TRAIN])

    assert not [name for name in given if name.startswith("AWS_") and name != "AWS_REGION"]


def test_a_missing_certificate_stops_the_container_with_words_and_not_the_mount_in_silence() -> None:
    training = made(storage__ca_secret_name="ca")[TRAIN]  # noqa: S106 - a name
    (volume,) = [volume for volume in pod_of(training)["volumes"] if volume["name"] == "ca"]

    assert volume["secret"]["optional"]
    assert {"secretKeyRef": {"name": "ca", "key": "ca.crt"}} == environment(training)["CHARALORA_CA"]
    assert "/etc/charalora-ca/ca.crt" == environment(training)["CHARALORA_CA_FILE"]


def test_a_queue_gets_the_job_suspended_and_labelled() -> None:
    queued, free = made(scheduling__queue_name="training")[TRAIN], made()[TRAIN]

    assert "training" == queued["metadata"]["labels"][names.QUEUE]
    assert queued["spec"]["suspend"]
    assert not free["spec"]["suspend"]
    assert names.QUEUE not in free["metadata"]["labels"]


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        ({"cache__claim_name": "models"}, {"persistentVolumeClaim": {"claimName": "models"}}),
        ({"cache__node": True}, {"hostPath": {"path": "/var/cache/charalora", "type": "DirectoryOrCreate"}}),
    ],
)
def test_the_warm_cache_is_mounted_in_both_pods(overrides: dict[str, Any], source: dict[str, Any]) -> None:
    settings = SETTINGS.model_copy(update={"node_cache_path": "/var/cache/charalora"})
    for job in (CHECK, TRAIN):
        manifest = made(settings, **overrides)[job]
        assert {"name": "cache", **source} in pod_of(manifest)["volumes"]
        assert "/cache" == environment(manifest)["CHARALORA_MODEL_CACHE"]


def test_without_a_cache_nothing_is_shared() -> None:
    for job in (CHECK, TRAIN):
        assert "CHARALORA_MODEL_CACHE" not in environment(made()[job])


def test_what_the_user_says_of_scheduling_reaches_the_pods() -> None:
    pod = pod_of(
        made(
            scheduling__priority_class_name="high",
            scheduling__node_selector={"pool": "gpu"},
            scheduling__tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        )[TRAIN]
    )

    assert "high" == pod["priorityClassName"]
    assert {"pool": "gpu"} == pod["nodeSelector"]
    assert [{"key": "nvidia.com/gpu", "operator": "Exists"}] == pod["tolerations"]
    assert "default" == pod["serviceAccountName"]


def test_long_names_keep_their_pods_names_valid_and_apart() -> None:
    one, other = "a" * 63, "a" * 62 + "b"

    assert names.training_job(one, 12) != names.training_job(other, 12)
    assert 52 >= len(names.training_job(one, 12))
    assert names.training_job(one, 12).endswith("-a12")


def test_no_field_of_the_resource_reaches_a_shell() -> None:
    for job in (CHECK, TRAIN):
        container = container_of(made(character__name="x-y_z")[job])
        assert "command" not in container
        assert all("surtr" not in argument or argument.startswith("surtr-a1-0") for argument in container["args"])


def test_pods_log_as_the_settings_say_and_whose_they_are() -> None:
    """Text for people unless the administrator wants JSON; a check is attempt 0."""
    machines = SETTINGS.model_copy(update={"log": LogSettings(trainings="json")})
    plain, asked = environment(made()[TRAIN]), environment(made(settings=machines)[CHECK])

    assert ("0", "1") == (plain["CHARALORA_LOG_JSON"], asked["CHARALORA_LOG_JSON"])
    assert plain["CHARALORA_LOG_FIELDS"].endswith(" name=surtr attempt=1")
    assert asked["CHARALORA_LOG_FIELDS"].endswith(" name=surtr attempt=0")
