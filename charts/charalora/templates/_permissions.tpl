{{/* Made by `make generate` from operator/charalora_operator/permissions.py. */}}
{{- define "charalora.rules" -}}
# To see what is asked for.
- apiGroups: ["charalora.dev"]
  resources: [characterloras]
  verbs: [get, list, watch]
# To delete a finished resource after run.ttlSecondsAfterFinished, and no other.
- apiGroups: ["charalora.dev"]
  resources: [characterloras]
  verbs: [delete]
# To say what was observed.
- apiGroups: ["charalora.dev"]
  resources: [characterloras/status]
  verbs: [patch]
# To see how checks and trainings go.
- apiGroups: ["batch"]
  resources: [jobs]
  verbs: [list, watch]
# To start them; a name that is taken is looked at before it is trusted.
- apiGroups: ["batch"]
  resources: [jobs]
  verbs: [create, get]
# To end them: to pause, at a deadline, and when a training stands still.
- apiGroups: ["batch"]
  resources: [jobs]
  verbs: [patch]
# To take back a Job that waits in a queue and never ran.
- apiGroups: ["batch"]
  resources: [jobs]
  verbs: [delete]
# To see why a pod waits, fails or was taken away. The Job controller makes pods; the operator does not.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# To hand the resource to its pods.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, get]
# To let the pods of several nodes find each other.
- apiGroups: [""]
  resources: [services]
  verbs: [create, get]
# To tell what happened in kubectl describe.
- apiGroups: [""]
  resources: [events]
  verbs: [create]
# To say why the Job controller cannot make pods: quota or admission.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# To see why a training waits in its queue.
- apiGroups: ["kueue.x-k8s.io"]
  resources: [workloads]
  verbs: [list]
{{- end }}
{{- define "charalora.ownRules" -}}
# To agree which replica works.
- apiGroups: ["coordination.k8s.io"]
  resources: [leases]
  verbs: [create, get, update]
{{- end }}
