"""The faults that Charalora survives: what a user sees of each, and what is lost at most. docs/faults.md is made from this table.

A test says which fault it shows, by a mark on the function itself:

    @pytest.mark.fault(Fault.LEADER_KILLED)
    def test_a_standby_takes_over_from_a_killed_leader(...) -> None: ...

One test may show several faults, and several tests one. For a new fault add a row to its group here, mark its tests and run
`make generate`. `make check` refuses a row that no test has; pytest ends with a line on the rows whose tests ran, and `make test` with an
error when one of them has no test that ran, or one that failed.
"""

from enum import Enum


class Group(Enum):
    """What breaks: the headings of the page, in its order."""

    OPERATOR = "The operator"
    API_SERVER = "The API server"
    CLUSTER = "Nodes, pods and what people delete"
    REFUSAL = "What the cluster refuses"
    STORAGE = "Storage and credentials"
    UPGRADE = "Upgrades"
    USERS = "Hostile users and broken files"


class Fault(Enum):
    """A fault of a group: what happens, what the user sees, what is lost at most."""

    # Group.OPERATOR
    OPERATOR_KILLED = (
        Group.OPERATOR,
        "The operator is killed before or after any of its writes",
        "Nothing. The next operator goes on; no object, attempt or Event is there twice.",
        "Nothing.",
    )
    LEADER_KILLED = (
        Group.OPERATOR,
        "The leader of two operators is killed",
        "Changes come up to 15 seconds later.",
        "Nothing.",
    )

    LEADER_FROZEN = (
        Group.OPERATOR,
        "The leader stands still, as on a machine that is paused, and goes on later",
        "Changes come up to 15 seconds later. The one that wakes writes nothing: it ends and stands by.",
        "Nothing.",
    )
    LEADER_CUT_OFF = (
        Group.OPERATOR,
        "The leader does not reach the API server any more",
        "Changes come up to 15 seconds later. The leader ends before the other one begins.",
        "Nothing.",
    )
    CLOCK_SET = (
        Group.OPERATOR,
        "The operator's clock is ten minutes fast or slow, or is set while it works",
        "Nothing. Turns are measured by a clock that nobody can set; everything else goes by the API server's time.",
        "Nothing.",
    )

    # Group.API_SERVER
    AWAY = (
        Group.API_SERVER,
        "The API server goes away, for minutes or longer",
        "Trainings go on, and nothing new is shown. When it is back, everything is caught up with.",
        "Nothing.",
    )
    OVERLOADED = (
        Group.API_SERVER,
        "Requests are turned away: 429 with `Retry-After`, by API Priority and Fairness too; 500, 503 and 504",
        "Changes come as much later.",
        "Nothing.",
    )
    WATCH_EXPIRED = (
        Group.API_SERVER,
        "A watch is too old (410 Gone)",
        "Nothing. The operator reads everything anew.",
        "Nothing.",
    )
    WATCH_ERROR = (
        Group.API_SERVER,
        "A watch tells an error (429, 500 or 504) in the middle of its stream",
        "The operator ends, and is started again by Kubernetes or replaced by the one that stands by.",
        "Nothing.",
    )
    WATCH_SILENT = (
        Group.API_SERVER,
        "A watch stays open and tells nothing any more",
        "Changes come up to `resyncSeconds` later; after 70 seconds the watch is replaced.",
        "Nothing.",
    )
    CONFLICT = (
        Group.API_SERVER,
        "A write meets a conflict: the object exists already, or has changed since it was read",
        "Nothing. What exists and is ours is taken as made; a status is computed anew from what changed.",
        "Nothing.",
    )
    EVENTS_DISORDERED = (
        Group.API_SERVER,
        "Watch events come twice, late, in another order or never; deletions are lost",
        "Nothing, or a change as late as the next complete listing (`resyncSeconds`).",
        "Nothing.",
    )
    DEFINITION_CHANGED = (
        Group.API_SERVER,
        "The definition of CharacterLora is replaced by a newer one while the operator runs",
        "Nothing. Fields that this operator does not know stay as they are.",
        "Nothing.",
    )
    SPEC_UNREADABLE = (
        Group.API_SERVER,
        "A resource that the definition should have refused is there all the same",
        "`SpecInvalid`, for good, with what is wrong; no Job is made, and it is not looked at again until it changes.",
        "Nothing; no GPU is held.",
    )
    STATUS_LARGE = (
        Group.API_SERVER,
        "A training is taken away very often, or the cluster's words are very long",
        "The newest twenty attempts, and all of them in `usage`; long words are cut.",
        "Details of older attempts.",
    )
    COLD_START = (
        Group.API_SERVER,
        "The operator starts and finds hundreds of resources that it has never seen",
        "Each gets its check, once.",
        "Nothing.",
    )

    # Group.CLUSTER
    PREEMPTED = (
        Group.CLUSTER,
        "A pod is preempted or evicted",
        "The attempt ends with `Preempted` after it has saved; the next one resumes at once and costs no retry.",
        "The step that was being computed.",
    )
    NODE_LOST = (
        Group.CLUSTER,
        "A node is lost with everything on it",
        "The attempt ends with `Preempted` 30 seconds after its pod should have gone; the next one resumes on another node.",
        "The steps since the last saved state, and the GPU time until the cluster gives the node up.",
    )
    NODE_RESTARTED = (
        Group.CLUSTER,
        "A node restarts so fast that the cluster does not miss it",
        "The attempt ends with `Preempted`, though nobody knows how its process ended; the next one resumes at once and costs no retry.",
        "The steps since the last saved state.",
    )
    NODE_COMES_BACK = (
        Group.CLUSTER,
        "A lost node comes back with a pod of an attempt that was given up",
        "Nothing. The late pod finds that the output prefix is a newer attempt's, and stops.",
        "Nothing.",
    )
    PROCESS_KILLED = (
        Group.CLUSTER,
        "The training's process is killed, by hand or for want of memory",
        "The attempt ends with its reason; the next one resumes while `run.retries` lasts. `HostOutOfMemory` ends it for good.",
        "The steps since the last saved state.",
    )
    GANG_MEMBER_LOST = (
        Group.CLUSTER,
        "One of several nodes' pods goes",
        "The gang starts again as a whole and resumes.",
        "The steps since the last saved state.",
    )
    TRAINING_HANGS = (
        Group.CLUSTER,
        "A training stands still",
        "The attempt ends with `Stalled`, and the next one resumes.",
        "The steps since the last saved state, and the chart's `settings.stallSeconds` of GPU time.",
    )
    DELETED_BY_HAND = (
        Group.CLUSTER,
        "A pod or a Job is deleted by hand",
        "The next attempt resumes.",
        "The step that was being computed; for a pod that is forced away, the steps since the last saved state.",
    )
    RESOURCE_DELETED = (
        Group.CLUSTER,
        "The resource is deleted in the middle of a run",
        "Everything of it in the cluster goes with it; what is in the bucket stays.",
        "Nothing that was uploaded.",
    )
    NAMESPACE_DELETED = (
        Group.CLUSTER,
        "The namespace is deleted in the middle of a run",
        "It goes with everything in it; trainings of other namespaces notice nothing.",
        "Nothing that was uploaded.",
    )
    EVICTED_BY_KUEUE = (
        Group.CLUSTER,
        "Kueue takes a training's admission away and gives it back, again and again",
        "STATE is `Queued` with Kueue's words in between; the same attempt goes on from its last state, as often as that happens.",
        "The step that was being computed.",
    )

    # Group.REFUSAL
    PODS_REFUSED = (
        Group.REFUSAL,
        "A quota, a limit range, a policy or pod security refuses the pods",
        "`QuotaExceeded` or `PodsRefused` with the cluster's own words; when the rule allows it, the training goes on by itself.",
        "Nothing; no GPU is held.",
    )
    UNSCHEDULABLE = (
        Group.REFUSAL,
        "No node has room, or the image cannot be pulled",
        "`Unschedulable` or `ImagePullFailed` with the cluster's own words; when that has changed, it goes on by itself.",
        "Nothing; no GPU is held.",
    )

    # Group.STORAGE
    SECRET_MISSING = (
        Group.STORAGE,
        "The Secret is missing, lacks a key or has wrong ones",
        "`SecretMissing` while it is waited for, or `StorageAccessDenied`; a Secret that comes later is used by itself.",
        "Nothing; no GPU is held.",
    )
    STORAGE_SLOW = (
        Group.STORAGE,
        "The bucket is slow, turns requests away or breaks connections",
        "Nothing; lines of the log say what is tried again.",
        "Nothing.",
    )
    STORAGE_GONE = (
        Group.STORAGE,
        "The bucket is cut off, for seconds or for good",
        "Nothing when it comes back within a minute. Else training goes on, ends with `StorageUnreachable`, and the next attempt resumes.",
        "With the pod the steps since the last state that arrived.",
    )
    STORAGE_FULL = (
        Group.STORAGE,
        "The bucket is full, or its quota is used up, in the middle of a run",
        "`DiskFull` at the end, naming the bucket and the service's own word. With room again the next attempt resumes.",
        "With the pod the steps since the last state that arrived.",
    )
    STORAGE_DENIED = (
        Group.STORAGE,
        "Rights are taken away, or keys are replaced, in the middle of a run",
        "`StorageAccessDenied`, naming what was refused. With new keys in the Secret, another try resumes.",
        "With the pod the steps since the last state that arrived.",
    )
    LISTING_LAGS = (
        Group.STORAGE,
        "Listings of the bucket lag behind what was written",
        "Nothing. The newest state and the saved files are asked for by name.",
        "Nothing.",
    )
    SECOND_WRITER = (
        Group.STORAGE,
        "Somebody else writes to the output prefix",
        "Of two trainings the older one stops with `OutputOccupied`; another's files are never overwritten.",
        "Nothing of the one that stays.",
    )
    OBJECT_CHANGED = (
        Group.STORAGE,
        "An object is truncated, changed or deleted after it was uploaded",
        "It is sent again by the machine that has it; else `ExportInvalid` names it. A damaged state is passed over for the one before.",
        "The steps since the state before.",
    )

    # Group.UPGRADE
    UPGRADED = (
        Group.UPGRADE,
        "Operator and definition are upgraded, and rolled back, in the middle of a run",
        "Nothing: the Job that trains belongs to the resource, and the next operator takes it up.",
        "Nothing.",
    )
    NEWER_FIELD = (
        Group.UPGRADE,
        "The operator is rolled back, and resources have a field that it does not know",
        "What runs runs on, and the condition Training names the field; nothing new is begun: `SpecInvalid` until an operator knows it.",
        "Nothing; the field stays in the resource as long as its definition knows it.",
    )
    VERSIONS_DIFFER = (
        Group.UPGRADE,
        "The operator and the trainer's image have different versions",
        "Nothing, where the trainer understands all of what it is given; else `SpecInvalid`, which names the field and both versions.",
        "Nothing; a state that the other version saved is gone on from.",
    )

    # Group.USERS
    MORE_THAN_ALLOWED = (
        Group.USERS,
        "Someone who may only make CharacterLoras asks for a host path, a Secret, an image, a strong account or the cluster's own priority",
        "There is no such field, or `SpecInvalid`; of a Secret only keys of fixed names reach the pod.",
        "Nothing.",
    )
    HOSTILE_TEXT = (
        Group.USERS,
        "Names, prompts, captions, file names or a service's answers hold markup, control characters or paths",
        "They stand there as text: in the report, in messages, logs, labels and metrics. Keys that lead out of a folder are refused.",
        "Nothing.",
    )
    HOSTILE_FILES = (
        Group.USERS,
        "Pictures, weights, embeddings, YAML or JSON are broken, or bombs",
        "A reason that names the file, within seconds and with little memory; nothing in them is run.",
        "Nothing; no GPU is held.",
    )
    FLOOD = (
        Group.USERS,
        "A user fills the queue, or the status",
        "The others are served in turn. What is too long is cut; a status written by hand is made anew.",
        "Nothing.",
    )

    def __init__(self, group: Group, what: str, seen: str, lost: str) -> None:
        self.group = group
        self.what = what
        self.seen = seen
        self.lost = lost
