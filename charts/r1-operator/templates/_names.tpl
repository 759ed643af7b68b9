{{- define "r1-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Release and chart, or one of them where the release is called like the chart. 52: room for "-metrics" and hashes. */}}
{{- define "r1-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "r1-operator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "r1-operator.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Cluster-wide objects of two releases must not share a name. */}}
{{- define "r1-operator.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "r1-operator.fullname" .) -}}
{{- end -}}

{{/* Names of the Secrets that images are pulled with, between commas. */}}
{{- define "r1-operator.pullSecretNames" -}}
{{- $names := list -}}
{{- range .Values.images.pullSecrets }}{{ $names = append $names .name }}{{ end -}}
{{- join "," $names -}}
{{- end -}}

{{- define "r1-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "r1-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "r1-operator.labels" -}}
{{ include "r1-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "r1-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "r1-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: needed where serviceAccount.create is false; give the name of an existing one" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* include "r1-operator.image" (list . "engine") */}}
{{- define "r1-operator.image" -}}
{{- $root := index . 0 -}}
{{- $images := $root.Values.images -}}
{{- $image := index $images (index . 1) -}}
{{- $tag := coalesce $image.tag $images.tag $root.Chart.AppVersion -}}
{{- if $images.registry -}}{{ trimSuffix "/" $images.registry }}/{{- end -}}
{{- if hasPrefix "sha256:" $tag -}}{{ $image.repository }}@{{ $tag }}{{- else -}}{{ $image.repository }}:{{ $tag }}{{- end -}}
{{- end -}}

{{/* Who reaches the pods of an R1Deployment from outside of it. */}}
{{- define "r1-operator.reach" -}}
{{- if and .Values.metrics.podMonitor .Values.networkPolicy.engines (not .Values.networkPolicy.metricsFrom) -}}
{{- fail "networkPolicy.metricsFrom: is empty, so the engines' NetworkPolicies would keep Prometheus from what metrics.podMonitor selects; name its namespace there, or set networkPolicy.engines to false" -}}
{{- end -}}
operator:
  - namespaceSelector:
      matchLabels:
        kubernetes.io/metadata.name: {{ .Release.Namespace }}
    podSelector:
      matchLabels: {{- include "r1-operator.selectorLabels" . | nindent 8 }}
metrics: {{- toYaml .Values.networkPolicy.metricsFrom | nindent 2 }}
{{- end -}}
