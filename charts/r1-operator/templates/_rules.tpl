{{/*
What the operator does inside a namespace it serves, and nothing more. Whatever it makes goes with its R1Deployment by
owner references, so it deletes only what has to leave earlier. create and patch together are server-side apply.
*/}}
{{- define "r1-operator.namespacedRules" -}}
- apiGroups: [r1operator.dev]
  resources: [r1deployments]
  verbs: [get, list, watch] # never the spec: that is the users'
- apiGroups: [r1operator.dev]
  resources: [r1deployments/status]
  verbs: [get, patch]
- apiGroups: [r1operator.dev]
  resources: [r1deployments/finalizers]
  verbs: [update] # where OwnerReferencesPermissionEnforcement is on, blockOwnerDeletion needs it
- apiGroups: [""]
  resources: [pods, configmaps]
  verbs: [get, list, watch, create, patch, delete] # delete: a gang goes before its resource does
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create] # and no other: a patch answers with the whole object, so whoever may patch may read
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete] # delete: where networkPolicy.engines is switched off
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch] # get, list: why a pod of ours hangs, FailedMount say, stands nowhere else
{{- end -}}
