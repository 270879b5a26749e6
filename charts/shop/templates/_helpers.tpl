{{- define "shop.name" -}}
{{- default .Release.Name .Values.name }}
{{- end }}

{{- define "shop.labels" -}}
app.kubernetes.io/name: xhipment
app.kubernetes.io/instance: {{ include "shop.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
