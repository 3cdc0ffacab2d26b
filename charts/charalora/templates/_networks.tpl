{{/* Who reads metrics; takes .Values.networkPolicy. */}}
{{- define "charalora.monitoring" -}}
{{- range .monitoringNamespaces }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
{{- else }}
- namespaceSelector: {}
{{- end }}
{{- end }}

{{- define "charalora.dns" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{/* Egress to networks on ports; takes a list of both. */}}
{{- define "charalora.networks" -}}
- ports:
    {{- range index . 1 }}
    - port: {{ . }}
    {{- end }}
  to:
    {{- range index . 0 }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end }}
