{{- define "tokenglass.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is put behind it. */}}
{{- define "tokenglass.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "tokenglass.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tokenglass.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tokenglass.injector" -}}
{{ include "tokenglass.fullname" . }}-injector
{{- end -}}

{{/* What a selector asks for. Given: root, component. */}}
{{- define "tokenglass.selector" -}}
app.kubernetes.io/name: {{ include "tokenglass.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* What an object has. Given: root, component; more, a map that goes on top. */}}
{{- define "tokenglass.labels" -}}
{{- $ours := include "tokenglass.selector" . | fromYaml -}}
{{- $ours = merge $ours (dict
  "app.kubernetes.io/version" (.root.Chart.AppVersion | toString)
  "app.kubernetes.io/part-of" "tokenglass"
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")) -}}
{{- $theirs := mergeOverwrite (deepCopy .root.Values.additionalLabels) (deepCopy (.more | default dict)) -}}
{{- toYaml (merge $ours $theirs) -}}
{{- end -}}

{{- define "tokenglass.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tokenglass.serviceAccount" -}}
{{- default (include "tokenglass.fullname" .) .Values.gateway.serviceAccount.name -}}
{{- end -}}

{{/* "true" if it is wanted: true, or auto where the cluster has the API. Given: root, enabled, api. */}}
{{- define "tokenglass.wanted" -}}
{{- if eq (toString .enabled) "auto" -}}
{{- if .root.Capabilities.APIVersions.Has .api }}true{{ end -}}
{{- else if .enabled -}}
true
{{- end -}}
{{- end -}}

{{/* One value of TOML. Helm's toToml would write a whole number as 4.0. Given: root, value. */}}
{{- define "tokenglass.toml" -}}
{{- $root := .root -}}
{{- if kindIs "string" .value -}}
{{- $text := .value -}}
{{- if contains "{{" $text }}{{ $text = tpl $text $root }}{{ end -}}
{{- $text | toRawJson -}}
{{- else if kindIs "slice" .value -}}
[{{ range $index, $item := .value }}{{ if $index }}, {{ end }}{{ include "tokenglass.toml" (dict "root" $root "value" $item) }}{{ end }}]
{{- else if kindIs "map" .value -}}
{ {{- $first := true }}{{ range $key, $item := .value }}{{ if not $first }},{{ end }}{{ $first = false }} {{ $key | toRawJson }} = {{ include "tokenglass.toml" (dict "root" $root "value" $item) }}{{ end }} }
{{- else if kindIs "float64" .value -}}
{{- if eq .value (floor .value) }}{{ int64 .value }}{{ else }}{{ .value }}{{ end -}}
{{- else -}}
{{- .value -}}
{{- end -}}
{{- end -}}

{{/* The configuration file. */}}
{{- define "tokenglass.config" -}}
{{- $root := . -}}
{{- range $section, $keys := .Values.config }}
{{- if $keys }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ include "tokenglass.toml" (dict "root" $root "value" $value) }}
{{- end }}
{{ end }}
{{- end }}
{{- end -}}

{{/* Namespaces whose EndpointSlices are followed, comma-separated. */}}
{{- define "tokenglass.discovered" -}}
{{- $root := . -}}
{{- $found := list -}}
{{- range (dig "gateway" "discover" list .Values.config) -}}
{{- $place := tpl . $root -}}
{{- if hasPrefix "kubernetes:" $place -}}
{{- $found = append $found (index (splitList "/" (trimPrefix "kubernetes:" $place)) 0) -}}
{{- end -}}
{{- end -}}
{{- $found | uniq | sortAlpha | join "," -}}
{{- end -}}

{{/* Pod Security "restricted", of a pod and of a container. */}}
{{- define "tokenglass.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "tokenglass.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where a pod goes. Given: root, component, values. */}}
{{- define "tokenglass.placement" -}}
{{- $selector := include "tokenglass.selector" . -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
affinity:
  {{- if .values.affinity }}
  {{- toYaml .values.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
  {{- end }}
topologySpreadConstraints:
  {{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}
