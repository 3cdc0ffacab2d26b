"""What the pods of checks and trainings have in common: security, storage credentials, folders, and what users say of scheduling."""

from charalora_operator import document, names
from charalora_operator.model import Manifest
from charalora_operator.settings import Settings
from charalora_spec.software import OPERATOR_VERSION, VERSION
from charalora_spec.spec import CharacterLora, CharacterLoraSpec

USER = 65532
"""The images' user; the restricted Pod Security standard wants one that is not root."""


def container(name: str, image: str, settings: Settings, run: CharacterLora, attempt: int = 0) -> Manifest:
    """What both kinds of pods have in common; a check is no attempt."""
    cache = _cache_volume(run.spec, settings)
    mounts = [
        {"name": "run", "mountPath": mounted(""), "readOnly": True},
        {"name": "work", "mountPath": "/work"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
    ]
    environment = [
        {"name": "CHARALORA_TERMINATION_LOG", "value": "/dev/termination-log"},
        {"name": "CHARALORA_CACHE", "value": "/work/cache"},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108
        {"name": OPERATOR_VERSION, "value": VERSION},
        {"name": "CHARALORA_LOG_JSON", "value": "1" if settings.log.trainings == "json" else "0"},
        {"name": "CHARALORA_LOG_FIELDS", "value": f"namespace={run.metadata.namespace} name={run.metadata.name} attempt={attempt}"},
    ]
    if cache:
        mounts.append({"name": "cache", "mountPath": "/cache"})
        environment.append({"name": "CHARALORA_MODEL_CACHE", "value": "/cache"})
    if run.spec.storage.ca_secret_name:
        mounts.append({"name": "ca", "mountPath": "/etc/charalora-ca", "readOnly": True})
        environment.append({"name": "CHARALORA_CA_FILE", "value": "/etc/charalora-ca/ca.crt"})
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": [*environment, *_credentials(run.spec)],
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def pod(run: CharacterLora, settings: Settings, work: Manifest) -> Manifest:
    """A pod with one container, under the restricted Pod Security standard and without a token."""
    scheduling, cache = run.spec.scheduling, _cache_volume(run.spec, settings)
    volumes = [
        {"name": "run", "configMap": {"name": names.run_config(run.metadata.name, document.run_digest(run))}},
        {"name": "work", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if cache:
        volumes.append({"name": "cache", **cache})
    if secret := run.spec.storage.ca_secret_name:
        # A missing Secret shall stop the container, which says so, and not the mount, which only an Event tells: see _credentials.
        one_key = [{"key": "ca.crt", "path": "ca.crt"}]  # whatever else the Secret has stays out of the pod
        volumes.append({"name": "ca", "secret": {"secretName": secret, "items": one_key, "optional": True}})
    body: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": scheduling.service_account_name or "default",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [work],
        "volumes": volumes,
    }
    if settings.image_pull_secrets:
        body["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if scheduling.priority_class_name:
        body["priorityClassName"] = scheduling.priority_class_name
    if scheduling.node_selector:
        body["nodeSelector"] = dict(scheduling.node_selector)
    if scheduling.tolerations:
        body["tolerations"] = [_left_in(toleration.model_dump(by_alias=True)) for toleration in scheduling.tolerations]
    return body


def _credentials(spec: CharacterLoraSpec) -> list[Manifest]:
    """Storage credentials by reference; their values never pass through here."""
    storage = spec.storage
    environment: list[Manifest] = [{"name": "AWS_REGION", "value": storage.region}]
    if storage.secret_name:
        environment += [_from_secret(name, storage.secret_name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        environment += [_from_secret(name, storage.secret_name, optional=True) for name in ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")]
    if storage.ca_secret_name:
        environment.append(_from_secret("CHARALORA_CA", storage.ca_secret_name, key="ca.crt"))  # read by nobody: it must exist
    return environment


def _from_secret(variable: str, secret: str, key: str = "", *, optional: bool = False) -> Manifest:
    reference: Manifest = {"name": secret, "key": key or variable}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference | ({"optional": True} if optional else {})}}


def _cache_volume(spec: CharacterLoraSpec, settings: Settings) -> Manifest | None:
    if spec.cache.claim_name:
        return {"persistentVolumeClaim": {"claimName": spec.cache.claim_name}}
    if spec.cache.node:
        return {"hostPath": {"path": settings.node_cache_path, "type": "DirectoryOrCreate"}}
    return None


def exactly(amounts: dict[str, str]) -> Manifest:
    """Requests that are limits: what was promised is there, and no more is taken."""
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _left_in(fields: Manifest) -> Manifest:
    return {name: value for name, value in fields.items() if value not in {"", None}}


def mounted(file: str) -> str:
    """Where a pod finds a file of its ConfigMap."""
    return f"/etc/charalora/{file}".rstrip("/")
