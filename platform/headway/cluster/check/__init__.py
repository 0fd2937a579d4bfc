"""`headway cluster check`: what is wrong with a cluster's file, or with manifests of KubeRay, before it costs."""
