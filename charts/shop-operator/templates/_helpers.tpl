{{- define "shop-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The name is fixed, also under an alias: by it the shops' NetworkPolicies let the operator in (operator/src/build/network.rs). */ -}}
{{- define "shop-operator.selectorLabels" -}}
app.kubernetes.io/name: shop-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shop-operator.labels" -}}
{{ include "shop-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "shop-operator.serviceAccountName" -}}
{{- default (include "shop-operator.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- /* The image of one part: (list $ "api") */ -}}
{{- define "shop-operator.image" -}}
{{- $root := index . 0 }}
{{- $part := index . 1 }}
{{- $images := $root.Values.images }}
{{- get $images $part | default (printf "%s/%s:%s" $images.registry $part ($images.tag | default $root.Chart.AppVersion)) }}
{{- end }}
