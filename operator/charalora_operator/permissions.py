"""What the operator may do in a cluster, and why: the chart's roles are made from this table, and cluster.py makes no other call."""

from dataclasses import dataclass

from charalora_spec.spec import GROUP, PLURAL


@dataclass(frozen=True)
class Permission:
    """One rule of a role.

    Attributes:
        group: API group; empty for the core.
        resource: Plural, with its subresource.
        verbs: What is done with it.
        why: What for.
        own_namespace: Whether it is needed in the operator's own namespace alone, whatever it watches.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str
    own_namespace: bool = False


PERMISSIONS = (
    Permission(GROUP, PLURAL, ("get", "list", "watch"), "To see what is asked for."),
    Permission(GROUP, PLURAL, ("delete",), "To delete a finished resource after run.ttlSecondsAfterFinished, and no other."),
    Permission(GROUP, f"{PLURAL}/status", ("patch",), "To say what was observed."),
    Permission("batch", "jobs", ("list", "watch"), "To see how checks and trainings go."),
    Permission("batch", "jobs", ("create", "get"), "To start them; a name that is taken is looked at before it is trusted."),
    Permission("batch", "jobs", ("patch",), "To end them: to pause, at a deadline, and when a training stands still."),
    Permission("batch", "jobs", ("delete",), "To take back a Job that waits in a queue and never ran."),
    Permission(
        "",
        "pods",
        ("list", "watch"),
        "To see why a pod waits, fails or was taken away. The Job controller makes pods; the operator does not.",
    ),
    Permission("", "configmaps", ("create", "get"), "To hand the resource to its pods."),
    Permission("", "services", ("create", "get"), "To let the pods of several nodes find each other."),
    Permission("", "events", ("create",), "To tell what happened in kubectl describe."),
    Permission("", "events", ("list",), "To say why the Job controller cannot make pods: quota or admission."),
    Permission("kueue.x-k8s.io", "workloads", ("list",), "To see why a training waits in its queue."),
    Permission("coordination.k8s.io", "leases", ("create", "get", "update"), "To agree which replica works.", own_namespace=True),
)
"""No Secret is read and no pod is made. What a deleted resource owned, the cluster's own garbage collector removes."""
