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
