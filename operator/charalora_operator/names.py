"""What our objects are called: the same inputs give the same name, so a lost answer to a create is a conflict and never a twin."""

import hashlib

MANAGER = "charalora-operator"
"""Field manager of everything that is applied, and the value of the managed-by label."""

NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
RESOURCE = "charalora.dev/resource"
ATTEMPT = "charalora.dev/attempt"
RUN = "charalora.dev/run"
"""Label of a Job: digest of what it was given, so that the verdict of an earlier content does not bind a later one."""
RETRY = "charalora.dev/retry"
"""Annotation of a CharacterLora; another value asks for another try of what has failed."""
ENDED = "charalora.dev/ended"
"""Annotation of a Job that we ended ourselves: the reason."""

PREFLIGHT = "preflight"
TRAINING = "training"
OURS = f"{MANAGED_BY}={MANAGER}"
"""Label selector of every Job and Pod that we watch."""

QUEUE = "kueue.x-k8s.io/queue-name"

_LONGEST = 52  # a Job's pods add an index and five characters to it, and a host name has 63
_DIGEST = 8


def run_config(resource: str, digest: str) -> str:
    """The ConfigMap with what is trained."""
    return _fitted(resource, f"-run-{short(digest)}")


def preflight_job(resource: str, digest: str) -> str:
    """The Job that checks what would be trained; another content is another check."""
    return _fitted(resource, f"-check-{short(digest)}")


def training_job(resource: str, attempt: int) -> str:
    """The Job of one attempt."""
    return _fitted(resource, f"-a{attempt}")


def headless_service(resource: str, attempt: int) -> str:
    """The headless Service of an attempt's pods: the Job's name, unless that begins with a digit, which a Service may not."""
    return training_job(resource if resource[0].isalpha() else f"n-{resource}", attempt)


def event(resource: str, microseconds: int, *parts: str) -> str:
    """An Event; its time stands first, because kubectl shows those of one second in the order of their names."""
    return f"{resource}.{microseconds:x}.{digest(*parts)[:_DIGEST]}"


def digest(*parts: str) -> str:
    """SHA-256 of some texts, in hexadecimal."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def short(digest: str) -> str:
    """The part of a digest that stands in names and labels."""
    return digest[:_DIGEST]


def _fitted(resource: str, suffix: str) -> str:
    """The name, with a digest in place of what is too long of the resource's own."""
    if len(resource) + len(suffix) <= _LONGEST:
        return resource + suffix
    head = resource[: _LONGEST - len(suffix) - _DIGEST - 1].rstrip("-.")
    return f"{head}-{digest(resource)[:_DIGEST]}{suffix}"
