{{/* The name of what is in a namespace begins with this. */}}
{{- define "sharevol.fullname" -}}
{{- if contains "sharevol" .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name }}-sharevol
{{- end -}}
{{- end -}}

{{/* What is in no namespace has a name with the driver's in it, which no two releases share. */}}
{{- define "sharevol.driverSuffix" -}}
{{- if ne .Values.driverName "csi.sharevol.dev" -}}
-{{ .Values.driverName }}
{{- end -}}
{{- end -}}

{{- define "sharevol.labels" -}}
{{ include "sharevol.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sharevol.selector" -}}
app.kubernetes.io/name: sharevol
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* N of the cluster's version 1.N. */}}
{{- define "sharevol.minor" -}}
{{- (semver (.Values.kubernetesVersion | default .Capabilities.KubeVersion.Version)).Minor -}}
{{- end -}}

{{/* The image of .image, with the tag .default if it has none. */}}
{{- define "sharevol.image" -}}
{{ printf "%s:%s" .image.repository (.image.tag | default .default) | quote }}
{{- end -}}

{{/* The path .path at the listener .address, as a probe asks for it. A listener on all
addresses is asked at the pod's own. */}}
{{- define "sharevol.httpGet" -}}
{{- $host := regexReplaceAll ":[0-9]+$" .address "" | trimPrefix "[" | trimSuffix "]" -}}
{{- if not (has $host (list "" "0.0.0.0" "::")) -}}
host: {{ $host | quote }}
{{ end -}}
port: {{ regexFind "[0-9]+$" .address }}
path: {{ .path }}
{{- end -}}

{{/* The provisioner's listener. */}}
{{- define "sharevol.provisionerAddress" -}}
{{- $p := .Values.provisioner -}}
{{ $p.httpAddress | default (ternary ":29801" "127.0.0.1:29801" $p.unprivileged) }}
{{- end -}}

{{/* The name of the object by which an nfs-subdir-external-provisioner elects its leader. */}}
{{- define "sharevol.locks" -}}
{{- range .Values.provisioner.adopt }}
- {{ .name | replace "/" "-" | quote }}
{{- end -}}
{{- end -}}

{{/* Other flags, of which none may be one that has a value of its own. */}}
{{- define "sharevol.extraArgs" -}}
{{- range .args }}
{{- $flag := regexReplaceAll "=.*$" . "" | trimPrefix "-" | trimPrefix "-" -}}
{{- if hasKey $.values $flag }}
{{- fail (printf "%s.extraArgs: %s is set by the value %s" $.of . (get $.values $flag)) }}
{{- end }}
- {{ . | quote }}
{{- end -}}
{{- end -}}

{{/* What no schema can say. */}}
{{- define "sharevol.check" -}}
{{- $minor := include "sharevol.minor" . | int -}}
{{- if and (lt $minor 17) (ne .Release.Namespace "kube-system") -}}
{{- fail (printf "Kubernetes 1.%d allows these pods' priority classes in kube-system only: install with --namespace kube-system" $minor) -}}
{{- end -}}
{{- if and .Values.provisioner.premounted (not .Values.provisioner.unprivileged) -}}
{{- fail "provisioner.premounted: only with provisioner.unprivileged=true; otherwise shares are mounted by need" -}}
{{- end -}}
{{- if .Values.provisioner.unprivileged -}}
{{- if not .Values.provisioner.premounted -}}
{{- fail "provisioner.premounted: must name at least one share if provisioner.unprivileged, for kubelet to mount" -}}
{{- end -}}
{{- $address := include "sharevol.provisionerAddress" . -}}
{{- if not (regexMatch "^(|0\\.0\\.0\\.0|\\[::\\]):" $address) -}}
{{- fail (printf "provisioner.httpAddress: %s can't be reached by kubelet if unprivileged: give it without an address, as :29801" $address) -}}
{{- end -}}
{{- end -}}
{{- end -}}
