#!/usr/bin/env bash
# Ten minutes on a real account: up, a job, a machine taken away under it, down, and what is left. It costs about $0.25:
# one m7i.large for a quarter of an hour, three 8-CPU spot machines for ten minutes, some requests.
#   cluster/aws/verify.sh BUCKET [REGION]      (from the folder of the repository; BUCKET is yours, in REGION)
set -euo pipefail

bucket=${1:?give a bucket of yours}
region=${2:-us-east-1}
name=verify-$(date +%s)
work=$(mktemp -d)
runs=s3://$bucket/headway-verify/$name/runs
data=s3://$bucket/headway-verify/data
begun=$(date +%s)

step() { printf '\n[%4d s] %s\n' "$(($(date +%s) - begun))" "$*"; }

finish() {
    code=$?
    step "taking it down"
    kill "${tunnel:-}" 2>/dev/null || true
    headway cluster down "$name" || code=$?
    step "machines, volumes and groups of $name that AWS still lists (there should be none)"
    for kind in instances volumes security-groups; do
        filters=(--filters "Name=tag:ray-cluster-name,Values=$name")
        [ "$kind" = instances ] && filters+=("Name=instance-state-name,Values=pending,running,stopping,stopped")
        [ "$kind" = volumes ] && filters+=("Name=status,Values=creating,available,in-use,error")
        left=$(aws ec2 "describe-$kind" --region "$region" "${filters[@]}" --query 'length(*[])' --output text) || left=unknown
        echo "$kind: $left"
        [ "$left" = 0 ] || code=1
    done
    rm -rf "$work"
    [ "$code" = 0 ] && step "good" || step "NOT GOOD: exit code $code"
    exit "$code"
}

step "who asks, and whether what is needed is here"
aws sts get-caller-identity --query Arn --output text
command -v session-manager-plugin ssh rsync headway >/dev/null

step "the data, into the bucket"
test -d data/fashion-mnist || headway data get fashion-mnist
headway data cp data/fashion-mnist "$data/fashion-mnist"

sed -e "s|YOUR-BUCKET/runs|${runs#s3://}|" -e "s|YOUR-BUCKET/data|${data#s3://}|" -e "s|us-east-1|$region|" \
    -e 's|stop_after_hours: 12|stop_after_hours: 1|' cluster/aws/spot.yaml >"$work/cluster.yaml"
headway cluster check "$work/cluster.yaml"

trap finish EXIT
step "up"
headway cluster up "$work/cluster.yaml" --name "$name"
headway cluster status "$name"
headway tunnel "$name" --port 8265 &
tunnel=$!
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 HEADWAY_RUNS=$runs
export RAY_AUTH_TOKEN_PATH="${HEADWAY_CLUSTERS:-$HOME/.headway/clusters}/$name/token"
sleep 5
kill -0 "$tunnel"    # or another answers at that port

step "a job of three workers: the autoscaler buys them"
headway submit trainers/image_classification/job.yaml --name "$name" --set "data.train=$data/fashion-mnist/train" \
    --set "data.validation=$data/fashion-mnist/test" --set workers.min=1 --set workers.max=3 --set steps=4000
for _ in $(seq 60); do
    [ "$(headway cluster status "$name" --json | grep -o '"type": "worker", "state": "up"' | wc -l)" -ge 2 ] && break
    sleep 10
done
headway cluster status "$name"

step "a worker is taken away, as EC2 takes spot machines: the run goes on without it, and another comes"
victim=$(aws ec2 describe-instances --region "$region" --query 'Reservations[0].Instances[0].InstanceId' --output text \
    --filters "Name=tag:ray-cluster-name,Values=$name" Name=tag:ray-node-type,Values=worker Name=instance-state-name,Values=running)
aws ec2 terminate-instances --region "$region" --instance-ids "$victim" --output text
sleep 60
headway events "$name"
headway status "$name"

step "stop: a checkpoint, and the end"
headway stop "$name"
headway report "$name"
