{{/*
What the operator does inside a namespace it serves, and nothing more. What it made goes with its R1Deployment by owner
references, so it deletes only what leaves earlier: pods and the ConfigMaps of gangs.
*/}}
{{- define "r1-operator.namespacedRules" -}}
- apiGroups: [r1operator.dev]
  resources: [r1deployments]
  verbs: [get, list, watch, patch] # patch: the finalizer
- apiGroups: [r1operator.dev]
  resources: [r1deployments/status]
  verbs: [get, patch]
- apiGroups: [r1operator.dev]
  resources: [r1deployments/finalizers]
  verbs: [update] # where OwnerReferencesPermissionEnforcement is on, blockOwnerDeletion needs it
- apiGroups: [""]
  resources: [pods, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch] # one by name: the Ray token it makes, the API key it is given
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
