import sys

import churn

import headway
from headway.adapters.lightning import Lightning


class Churn(Lightning):
    module = churn.Churn


if __name__ == "__main__":
    train, held_out = churn.rows(sys.argv[1])
    job = {"name": "churn", "lanes": 2, "lane_batch": 32, "epochs": 3}
    report = headway.train(job, task=Churn, data={"train": train, "validation": held_out}, address="in-process")
    print(report.metrics)
