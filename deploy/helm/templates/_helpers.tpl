{{/* The prefix of every name: the release's, with "outbox" in it. A release called outbox makes
     outbox-relay, the job that dashboard and alerts expect. */}}
{{- define "outbox.name" -}}
{{- if contains "outbox" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-outbox{{ end }}
{{- end }}

{{/* Labels by which one part of one release is found: (list $ "relay"). */}}
{{- define "outbox.selector" -}}
app.kubernetes.io/name: outbox-{{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "outbox.labels" -}}
{{- $root := index . 0 -}}
{{ include "outbox.selector" . }}
app.kubernetes.io/part-of: celery-outbox
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{/* (list $ "celery-outbox/relay") */}}
{{- define "outbox.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.images.registry }}{{ index . 1 }}:{{ $root.Values.images.tag | default $root.Chart.AppVersion }}
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
    secretName: {{ $root.Values.secret.name }}
    defaultMode: 0440
    items:
      {{- range rest . }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
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
