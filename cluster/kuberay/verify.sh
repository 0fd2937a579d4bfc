#!/usr/bin/env bash
# Ten minutes on the cluster that kubectl speaks to, where KubeRay's operator (1.7 or later) runs: a Ray cluster, a run,
# an evicted worker, the end. IMAGE is what the Dockerfile here builds; nodes have the label headway/capacity.
#   cluster/kuberay/verify.sh IMAGE RUNS [NAMESPACE]     (RUNS: a URL that the pods and you reach, like s3://BUCKET/runs)
set -euo pipefail

image=${1:?give the image}
runs=${2:?give a URL for runs}
space=${3:-default}
name=verify-$(date +%s)
work=$(mktemp -d)
begun=$(date +%s)

step() { printf '\n[%4d s] %s\n' "$(($(date +%s) - begun))" "$*"; }

finish() {
    code=$?
    step "taking it down"
    kill "${tunnel:-}" 2>/dev/null || true
    kubectl -n "$space" delete --ignore-not-found -f "$work/cluster.yaml" || code=$?
    kubectl -n "$space" wait --for=delete pod -l ray.io/cluster="$name" --timeout=120s || code=$?
    rm -rf "$work"
    [ "$code" = 0 ] && step "good" || step "NOT GOOD: exit code $code"
    exit "$code"
}

operator=$(kubectl get deployments -A -l app.kubernetes.io/name=kuberay-operator -o 'jsonpath={.items[0].metadata.namespace}')
sed -e "s|registry.example.com/headway:0.1.0|$image|" -e "s|s3://YOUR-BUCKET/runs|$runs|" \
    -e "s|name: headway$|name: $name|" -e "s|name: headway-|name: $name-|" -e "s|ray.io/cluster: headway|ray.io/cluster: $name|" \
    -e "s|kuberay-system|${operator:?no operator is found}|" \
    cluster/kuberay/cluster.yaml >"$work/cluster.yaml"
headway cluster check "$work/cluster.yaml"
kubectl -n "$space" apply --dry-run=server -f "$work/cluster.yaml"

trap finish EXIT
step "up"
kubectl -n "$space" apply -f "$work/cluster.yaml"
kubectl -n "$space" wait --for=condition=HeadPodReady "raycluster/$name" --timeout=300s
kubectl -n "$space" port-forward "service/$name-head-svc" 8265:8265 >/dev/null &
tunnel=$!
sleep 5
kill -0 "$tunnel"    # or another answers at that port
RAY_AUTH_TOKEN=$(kubectl -n "$space" get secret "$name" -o 'jsonpath={.data.auth_token}' | base64 -d)
export RAY_AUTH_TOKEN RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 HEADWAY_RUNS=$runs

step "a run of two workers: the autoscaler starts pods"
headway submit trainers/image_classification/job.yaml --name "$name" --set "data.train=${runs%/runs}/data/fashion-mnist/train" \
    --set "data.validation=${runs%/runs}/data/fashion-mnist/test" --set workers.min=1 --set workers.max=2 --set steps=4000
sleep 180
headway status "$name"

step "a worker's pod is deleted: its preStop hook hands the lanes over"
victim=$(kubectl -n "$space" get pods -l "ray.io/cluster=$name,ray.io/node-type=worker" -o 'jsonpath={.items[0].metadata.name}')
kubectl -n "$space" delete pod "$victim" --wait=false
sleep 60
headway events "$name"

step "stop: a checkpoint, and the end"
headway stop "$name"
headway report "$name"
