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

{{/* An image of .Values.images; takes a list of the image and the chart's appVersion. */}}
{{- define "charalora.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end }}

{{/* The restricted Pod Security standard. */}}
{{- define "charalora.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "charalora.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "charalora.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The operator's settings: what .Values.settings says, and what follows from the rest of the chart. */}}
{{- define "charalora.settings" -}}
{{- $lease := merge (dict "name" (include "charalora.name" .)) (.Values.settings.lease | default dict) -}}
{{- $own := dict
  "trainerImage" (include "charalora.image" (list .Values.images.trainer .Chart.AppVersion))
  "preflightImage" (include "charalora.image" (list .Values.images.preflight .Chart.AppVersion))
  "imagePullPolicy" .Values.images.pullPolicy
  "imagePullSecrets" .Values.images.pullSecrets
  "lease" $lease
  "http" (dict "port" 8080)
-}}
{{- merge $own .Values.settings | toPrettyJson -}}
{{- end }}
