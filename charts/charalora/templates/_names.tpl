{{/* Name of everything of this release. */}}
{{- define "charalora.name" -}}
{{- $name := ternary .Release.Name (printf "%s-charalora" .Release.Name) (contains "charalora" .Release.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* What a Deployment and a Service select: it can never change, or an upgrade is refused. */}}
{{- define "charalora.selector" -}}
app.kubernetes.io/name: charalora
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "charalora.labels" -}}
app.kubernetes.io/name: charalora
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Pods that the operator lets run: the labels of charalora_operator/names.py. */}}
{{- define "charalora.ours" -}}
app.kubernetes.io/name: charalora
app.kubernetes.io/managed-by: charalora-operator
{{- end }}

{{- define "charalora.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "charalora.name" .) -}}
{{- end }}
