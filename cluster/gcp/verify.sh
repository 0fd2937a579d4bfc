#!/usr/bin/env bash
# Ten minutes on a real project: up, a job, a machine taken away under it, down, what is left. About $0.30.
#   cluster/gcp/verify.sh PROJECT BUCKET      (from the folder of the repository)
set -euo pipefail

project=${1:?give a project}
bucket=${2:?give a bucket}
zone=us-central1-a
name=verify-$(date +%s)
work=$(mktemp -d)
begun=$(date +%s)
runs=gs://$bucket/headway-verify/$name/runs
data=gs://$bucket/headway-verify/data

step() { printf '\n[%4d s] %s\n' "$(($(date +%s) - begun))" "$*"; }

finish() {
    code=$?
    step "taking it down"
    kill "${tunnel:-}" 2>/dev/null || true
    ray down -y "$work/cluster.yaml" || code=$?
    step "machines and disks of $name that Google still lists (there should be none)"
    for _ in $(seq 24); do
        left=$(gcloud compute instances list --project "$project" --filter "labels.ray-cluster-name=$name" --format 'value(name)' &&
            gcloud compute disks list --project "$project" --filter "name~$name" --format 'value(name)') || left="who knows: it cannot be listed"
        [ -z "$left" ] && break
        sleep 5
    done
    [ -z "$left" ] || { echo "$left" && code=1; }
    rm -rf "$work"
    [ "$code" = 0 ] && step "good" || step "NOT GOOD: exit code $code"
    exit "$code"
}

step "what is needed"
gcloud auth list --filter status:ACTIVE --format 'value(account)'
python -c 'import googleapiclient'
python -m headway.cluster.pins >"$work/requirements.txt"
(umask 077 && openssl rand -hex 32 >"$work/token")
test -d data/fashion-mnist || headway data get fashion-mnist
headway data cp data/fashion-mnist "$data/fashion-mnist"
sed -e "s|YOUR-PROJECT|$project|" -e "s|^cluster_name: spot|cluster_name: $name|" -e "s|build/cluster/|$work/|" \
    cluster/gcp/spot.yaml >"$work/cluster.yaml"
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

step "a worker is preempted"
victim=$(gcloud compute instances list --project "$project" --format 'value(name)' --limit 1 \
    --filter "labels.ray-cluster-name=$name AND labels.ray-node-type=worker")
gcloud compute instances simulate-maintenance-event "$victim" --project "$project" --zone "$zone"
sleep 90
headway events "$name"

step "stop: a checkpoint, and the end"
headway stop "$name"
headway report "$name"
