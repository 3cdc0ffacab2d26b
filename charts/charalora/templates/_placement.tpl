{{/* Where the operators run. */}}
{{- define "charalora.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.topologySpreadKeys }}
topologySpreadConstraints:
  {{- range .Values.topologySpreadKeys }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash] # each rollout is spread anew
    labelSelector: {matchLabels: {{ include "charalora.selector" $ | fromYaml | toJson }}}
  {{- end }}
{{- end }}
{{- end }}
