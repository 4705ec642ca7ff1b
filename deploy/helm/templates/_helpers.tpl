{{/* The prefix of every name: the release's, with "outbox" in it. A release called outbox makes
     outbox-relay, the job that dashboard and alerts expect. Cut, so that with the longest of its
     endings it is a name that Kubernetes takes: 63 characters. */}}
{{- define "outbox.name" -}}
{{- $name := ternary .Release.Name (printf "%s-outbox" .Release.Name) (contains "outbox" .Release.Name) -}}
{{- $name | trunc 55 | trimSuffix "-" -}}
{{- end }}

{{/* Labels by which one part of one release is found: (list $ "relay"). */}}
{{- define "outbox.selector" -}}
app.kubernetes.io/name: outbox-{{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
{{- end }}

{{/* A text as the value of a label, which takes no plus and 63 characters. */}}
{{- define "outbox.label" -}}
{{ . | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end }}

{{- define "outbox.labels" -}}
{{- $root := index . 0 -}}
{{ include "outbox.selector" . }}
app.kubernetes.io/part-of: celery-outbox
app.kubernetes.io/version: {{ include "outbox.label" $root.Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ include "outbox.label" $root.Release.Service }}
helm.sh/chart: {{ include "outbox.label" (printf "%s-%s" $root.Chart.Name $root.Chart.Version) }}
{{- end }}

{{/* (list $ "celery-outbox/relay"). A name without a registry would be looked for at Docker Hub, where
     these are not. */}}
{{- define "outbox.image" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s%s" $root.Values.images.registry (index . 1) -}}
{{- if not (regexMatch "^(localhost|[^/]*[.:][^/]*)/" $name) -}}
{{- fail (printf "images.registry is not set, and %s names no registry: give the one that you have pushed the images to, such as --set images.registry=registry.example.com/" $name) -}}
{{- end -}}
{{ printf "%s:%s" $name ($root.Values.images.tag | default $root.Chart.AppVersion) | quote }}
{{- end }}

{{/* What all pods are: nobody in particular, with no rights. */}}
{{- define "outbox.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "outbox.harmless" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The Secret as files, these keys of it: (list $ "key" "key" ...). */}}
{{- define "outbox.secrets" -}}
{{- $root := index . 0 -}}
- name: secrets
  secret:
    secretName: {{ $root.Values.secret.name | quote }}
    defaultMode: 0440
    items:
      {{- range rest . }}
      - {key: {{ . | quote }}, path: {{ . | quote }}}
      {{- end }}
{{- end }}

{{/* A value as a variable's text: a large number is a float for Helm, and would be 1e+06. */}}
{{- define "outbox.text" -}}
{{ kindIs "float64" . | ternary (printf "%d" (int64 .)) (toString .) | quote }}
{{- end }}

{{/* The relay's secrets, as a list of variables with the keys that hold them. */}}
{{- define "outbox.relayFiles" -}}
{{- $secret := .Values.secret -}}
{{- $database := list "OUTBOX_DATABASE_URL_FILE" $secret.relayDatabaseUrl -}}
{{- with $secret.databases }}{{ $database = list "OUTBOX_DATABASES_FILE" . }}{{ end -}}
{{- $files := list $database (list "OUTBOX_BROKER_URL_FILE" $secret.brokerUrl) -}}
{{- with $secret.brokerTransportOptions }}{{ $files = append $files (list "OUTBOX_BROKER_TRANSPORT_OPTIONS_FILE" .) }}{{ end -}}
{{- with $secret.inboxUrl }}{{ $files = append $files (list "OUTBOX_INBOX_URL_FILE" .) }}{{ end -}}
{{ toJson $files }}
{{- end }}

{{- define "outbox.mounts" -}}
- {name: secrets, mountPath: /run/secrets/outbox, readOnly: true}
{{- end }}

{{/* Names, and these ports anywhere: (concat ports ports). */}}
{{- define "outbox.egress" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
- ports:
    {{- range . }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end }}
