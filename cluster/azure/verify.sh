#!/usr/bin/env bash
# Ten minutes on a real subscription: up, a job, an eviction under it, down, what is left. About $0.30.
#   cluster/azure/verify.sh CONTAINER      (from the folder of the repository; AZURE_STORAGE_ACCOUNT_NAME is set)
set -euo pipefail

container=${1:?give a blob container}
name=verify-$(date +%s)
group=headway-$name
work=$(mktemp -d)
begun=$(date +%s)
runs=az://$container/headway-verify/$name/runs
data=az://$container/headway-verify/data

step() { printf '\n[%4d s] %s\n' "$(($(date +%s) - begun))" "$*"; }

finish() {
    code=$?
    step "taking it down: the resource group, and all in it"
    kill "${tunnel:-}" 2>/dev/null || true
    ray down -y "$work/cluster.yaml" || code=$?
    az resource list --resource-group "$group" --query '[].id' --output tsv || true
    az group delete --yes --name "$group" || code=$?
    [ "$(az group exists --name "$group")" = false ] || { echo "the resource group $group is there, or may be" && code=1; }
    rm -rf "$work"
    [ "$code" = 0 ] && step "good" || step "NOT GOOD: exit code $code"
    exit "$code"
}

step "what is needed"
az account show --query name --output tsv
python -c 'import azure.mgmt.compute'
python -m headway.cluster.pins >"$work/requirements.txt"
(umask 077 && openssl rand -hex 32 >"$work/token")
test -d data/fashion-mnist || headway data get fashion-mnist
headway data cp data/fashion-mnist "$data/fashion-mnist"
sed -e "s|headway-spot|$group|" -e "s|^cluster_name: spot|cluster_name: $name|" -e "s|build/cluster/|$work/|" \
    cluster/azure/spot.yaml >"$work/cluster.yaml"
headway cluster check "$work/cluster.yaml"

trap finish EXIT
step "up"
ray up -y "$work/cluster.yaml"
ray exec "$work/cluster.yaml" 'sleep 3600' --port-forward 8265 >/dev/null 2>&1 &
tunnel=$!
sleep 10
kill -0 "$tunnel"    # or another answers at that port
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 HEADWAY_RUNS=$runs RAY_AUTH_TOKEN_PATH=$work/token

step "a job of two workers"
headway submit trainers/image_classification/job.yaml --name "$name" --set "data.train=$data/fashion-mnist/train" \
    --set "data.validation=$data/fashion-mnist/test" --set workers.min=1 --set workers.max=2 --set steps=4000
sleep 300
headway status "$name"

step "a worker is evicted"
victim=$(az vm list --resource-group "$group" --query "[?priority=='Spot'] | [0].id" --output tsv)
az vm simulate-eviction --ids "$victim"
sleep 120
headway events "$name"

step "stop: a checkpoint, and the end"
headway stop "$name"
headway report "$name"
