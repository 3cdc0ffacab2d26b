"""CharacterLora → manifests. No clock, no cluster, no randomness: the same resource and settings give the same objects."""

from collections.abc import Sequence

from charalora_operator import document, names
from charalora_operator.model import Manifest, Resource
from charalora_operator.pods import container, exactly, mounted, pod
from charalora_operator.settings import Settings
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.spec import API_VERSION, KIND, CharacterLora, CharacterLoraSpec

CHECK = "check"
TRAINER = "trainer"
METRICS_PORT = 9400
RENDEZVOUS_PORT = 29500
CHECK_RETRIES = 3
LONGEST_CHECK = 3600
"""Seconds; a check that takes longer hangs."""
_FINAL_CODES = [outcome.exit_code for outcome in Outcome if outcome.retry is Retry.NEVER and outcome.exit_code]


def run_config(resource: Resource, run: CharacterLora) -> Manifest:
    """The ConfigMap that every pod mounts. It never changes: another content has another name."""
    name = names.run_config(run.metadata.name, document.run_digest(run))
    return _owned(resource, "v1", "ConfigMap", name, {}) | {"immutable": True, "data": {document.FILE: document.run_document(run)}}


def preflight_job(resource: Resource, run: CharacterLora, settings: Settings) -> Manifest:
    """The Job that looks at storage, data set and base model on a CPU; the Job controller repeats it where that can help."""
    labels = {names.COMPONENT: names.PREFLIGHT, names.RUN: names.short(document.run_digest(run))}
    together = run.spec.resources.nodes * max(1, run.spec.resources.gpus)
    work = container(CHECK, settings.preflight_image, settings, run) | {
        "args": ["check", mounted(document.FILE), "--processes", str(together), "--work", "/work"],
        "resources": exactly({"cpu": settings.preflight.cpu, "memory": settings.preflight.memory}),
    }
    spec = {
        "backoffLimit": CHECK_RETRIES,
        "activeDeadlineSeconds": LONGEST_CHECK,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [_on_disruption("Ignore"), _on_final_codes(CHECK)]},
        "template": {"metadata": {"labels": _labels(resource, labels)}, "spec": pod(run, settings, work)},
    }
    name = names.preflight_job(run.metadata.name, document.run_digest(run))
    return _owned(resource, "batch/v1", "Job", name, labels) | {"spec": spec}


def headless_service(resource: Resource, run: CharacterLora, attempt: int) -> Manifest | None:
    """Gives the first pod of several a name that the others find it by, before any of them is ready."""
    if run.spec.resources.nodes == 1:
        return None
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"batch.kubernetes.io/job-name": names.training_job(run.metadata.name, attempt)},
        "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
    }
    name = names.headless_service(run.metadata.name, attempt)
    return _owned(resource, "v1", "Service", name, _training_labels(run, attempt)) | {"spec": spec}


def training_job(
    resource: Resource, run: CharacterLora, settings: Settings, attempt: int, dataset: str, seconds_left: int | None
) -> Manifest:
    """The Job of one attempt. It never restarts a pod: whether another attempt helps is decided where the whole history is known.

    Args:
        resource: Its owner.
        run: What is trained.
        settings: The administrator's.
        attempt: Its number.
        dataset: Digest of the data set that was checked.
        seconds_left: What remains of run.deadlineSeconds; None without a limit.
    """
    name, labels = names.training_job(run.metadata.name, attempt), _training_labels(run, attempt)
    wanted, queue = run.spec.resources, run.spec.scheduling.queue_name
    work = container(TRAINER, settings.trainer_image, settings, run, attempt) | {
        "args": _training_arguments(resource, run, attempt, dataset),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "resources": exactly(
            {"cpu": wanted.cpu, "memory": wanted.memory} | ({wanted.gpu_resource: str(wanted.gpus)} if wanted.gpus else {})
        ),
    }
    work["env"] += _training_environment(run.spec, settings)
    work["volumeMounts"].append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108 - where NCCL and torch look
    body = pod(run, settings, work) | {"terminationGracePeriodSeconds": settings.grace_period_seconds}
    body["volumes"].append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": wanted.shared_memory}})
    if settings.runtime_class_name:
        body["runtimeClassName"] = settings.runtime_class_name
    if wanted.nodes > 1:
        body |= {"subdomain": names.headless_service(run.metadata.name, attempt), "affinity": {"podAntiAffinity": _one_a_machine(name)}}
    spec = {
        "completionMode": "Indexed",
        "completions": wanted.nodes,
        "parallelism": wanted.nodes,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [_on_disruption("FailJob"), _on_final_codes(TRAINER)]},
        "suspend": queue is not None,  # Kueue lets it go when there is quota
        "template": {"metadata": {"labels": _labels(resource, labels)}, "spec": body},
    }
    if wanted.nodes > 1:
        # The first node writes the files; a pod that is still there when it is done, the cluster takes away.
        spec["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    if seconds_left is not None:
        spec["activeDeadlineSeconds"] = seconds_left
    return _owned(resource, "batch/v1", "Job", name, labels | _queue_labels(run.spec)) | {"spec": spec}


def _training_arguments(resource: Resource, run: CharacterLora, attempt: int, dataset: str) -> list[str]:
    wanted = run.spec.resources
    arguments = ["run", mounted(document.FILE), "--processes", str(max(1, wanted.gpus)), "--work", "/work", "--expect-dataset", dataset]
    if wanted.nodes == 1:
        return arguments
    job, service = names.training_job(run.metadata.name, attempt), names.headless_service(run.metadata.name, attempt)
    first = f"{job}-0.{service}.{resource.key.namespace}.svc:{RENDEZVOUS_PORT}"
    arguments += ["--nodes", str(wanted.nodes), "--node-rank", "$(JOB_COMPLETION_INDEX)", "--rendezvous", first]
    return [*arguments, "--run-id", f"{resource.uid}-{attempt}"]  # a late pod of an old attempt finds nobody


def _training_environment(spec: CharacterLoraSpec, settings: Settings) -> list[Manifest]:
    on_cpu = settings.train_on_cpu or spec.resources.gpus == 0
    device = {"CHARALORA_DEVICE": "cpu"} if on_cpu else {"CHARALORA_GPUS": str(spec.resources.gpus)}
    plain = device | {
        "CHARALORA_METRICS_PORT": str(METRICS_PORT),
        "NCCL_DEBUG": "WARN",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",  # a lost peer is an error and no wait for ever
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",  # pictures of several sizes fragment the memory otherwise
    }
    return [{"name": name, "value": value} for name, value in plain.items()]


def _queue_labels(spec: CharacterLoraSpec) -> dict[str, str]:
    if spec.scheduling.queue_name is None:
        return {}
    return {names.QUEUE: spec.scheduling.queue_name}


def _training_labels(run: CharacterLora, attempt: int) -> dict[str, str]:
    return {names.COMPONENT: names.TRAINING, names.ATTEMPT: str(attempt), names.RUN: names.short(document.run_digest(run))}


def _labels(resource: Resource, more: dict[str, str]) -> dict[str, str]:
    return {names.NAME: "charalora", names.MANAGED_BY: names.MANAGER, names.RESOURCE: resource.key.name, **more}


def _owned(resource: Resource, api_version: str, kind: str, name: str, labels: dict[str, str]) -> Manifest:
    """The head of an object that goes when its owner goes."""
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": resource.key.name, "uid": resource.uid, "controller": True}
    metadata = {
        "name": name,
        "namespace": resource.key.namespace,
        "labels": _labels(resource, labels),
        "ownerReferences": [owner],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _on_disruption(action: str) -> Manifest:
    return {"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _on_final_codes(container: str) -> Manifest:
    return {"action": "FailJob", "onExitCodes": {"containerName": container, "operator": "In", "values": _FINAL_CODES}}


def _one_a_machine(job: str) -> Manifest:
    selector = {"matchLabels": {"batch.kubernetes.io/job-name": job}}
    return {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}]}


def manifests_of_check(resource: Resource, run: CharacterLora, settings: Settings) -> Sequence[Manifest]:
    """Everything that a check needs, in the order of its making."""
    return [run_config(resource, run), preflight_job(resource, run, settings)]


def manifests_of_attempt(
    resource: Resource, run: CharacterLora, settings: Settings, attempt: int, dataset: str, seconds_left: int | None
) -> Sequence[Manifest]:
    """Everything that an attempt needs, in the order of its making; the Job last, so that its pods find the rest."""
    wanted = [
        run_config(resource, run),
        headless_service(resource, run, attempt),
        training_job(resource, run, settings, attempt, dataset, seconds_left),
    ]
    return [manifest for manifest in wanted if manifest]
