"""What must hold before anything is made for a resource: an ordered list of named checks, each with its reason."""

from charalora_operator.settings import Settings
from charalora_spec.spec import CharacterLora


def first_blocker(run: CharacterLora, settings: Settings) -> str:
    """Why nothing may be made for a resource, and what to do; empty when nothing stands against it."""
    return next((why for check in PRECONDITIONS if (why := check(run, settings))), "")


def _service_account_allowed(run: CharacterLora, settings: Settings) -> str:
    asked = run.spec.scheduling.service_account_name
    if asked in {None, "default", *settings.allowed_service_accounts}:
        return ""
    allowed = ", ".join(["default", *settings.allowed_service_accounts])
    return f"scheduling.serviceAccountName: {asked} is not allowed here; leave it out, or use one of: {allowed}."


def _priority_is_not_the_clusters_own(run: CharacterLora, settings: Settings) -> str:
    """By Kubernetes' own two classes a training would evict what the cluster lives on; others are for a quota to give."""
    del settings
    asked = run.spec.scheduling.priority_class_name or ""
    return f"scheduling.priorityClassName: {asked} is for the cluster's own pods; use another class." if asked.startswith("system-") else ""


def _node_cache_exists(run: CharacterLora, settings: Settings) -> str:
    if not run.spec.cache.node or settings.node_cache_path:
        return ""
    return "cache.node: this cluster's nodes have no such folder (setting nodeCachePath); use cache.claimName, or leave it out."


def _files_are_reachable(run: CharacterLora, settings: Settings) -> str:
    """A pod sees no folder of anybody's machine: only the cache that is mounted into it."""
    del settings
    spec = run.spec
    local = {"dataset.uri": spec.dataset.uri, "output.uri": spec.output.uri}
    if wrong := next((field for field, uri in local.items() if uri.startswith("file://")), None):
        return f"{wrong}: a cluster's pods cannot reach a file:// folder; use s3://bucket/prefix/."
    models = {"baseModel.uri": spec.base_model.uri, "preview.baseModel": spec.preview.base_model or ""}
    wrong = next((field for field, uri in models.items() if uri.startswith("file://") and not uri.startswith("file:///cache/")), None)
    if wrong:
        return f"{wrong}: in a cluster a file:// model must lie in the mounted cache, file:///cache/…."
    if any(uri.startswith("file://") for uri in models.values()) and not (spec.cache.node or spec.cache.claim_name):
        return "baseModel.uri: file:///cache/… needs cache.claimName or cache.node, which mount the cache."
    return ""


PRECONDITIONS = (
    _service_account_allowed,  # the pods act as nobody whom the administrator did not name
    _priority_is_not_the_clusters_own,  # the pods would evict DNS and device plugins
    _node_cache_exists,  # the pods would wait for a folder without a path
    _files_are_reachable,  # the training would look for files of another machine
)
