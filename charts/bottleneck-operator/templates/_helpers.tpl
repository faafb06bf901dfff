{{/* Name of the release's objects: the release's name says it all when it holds the chart's. */}}
{{- define "bottleneck.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "bottleneck.injector" -}}
{{- include "bottleneck.fullname" . -}}-injector
{{- end -}}

{{/* Names of cluster-wide objects hold the namespace: two releases may share a name. */}}
{{- define "bottleneck.clusterName" -}}
{{- printf "%s.%s" .Release.Namespace (include "bottleneck.fullname" .) -}}
{{- end -}}

{{/* Labels that select a component's pods; call with (list . "component"). */}}
{{- define "bottleneck.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "bottleneck.labels" -}}
{{- $root := index . 0 -}}
{{ include "bottleneck.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Image reference; call with (list . image). */}}
{{- define "bottleneck.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}

{{/* What the restricted Pod security profile asks for. */}}
{{- define "bottleneck.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "bottleneck.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where a component's pods run; call with its values. */}}
{{- define "bottleneck.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The Secret that the webhook serves with. */}}
{{- define "bottleneck.certificateSecret" -}}
{{- if eq .Values.injector.certificate.source "secret" -}}
{{- required "write the name of your TLS Secret into injector.certificate.secretName" .Values.injector.certificate.secretName -}}
{{- else -}}
{{- include "bottleneck.injector" . -}}-tls
{{- end -}}
{{- end -}}
