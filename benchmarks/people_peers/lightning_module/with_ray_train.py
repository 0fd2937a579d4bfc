import sys
from pathlib import Path

import churn
import lightning
import ray.train
import ray.train.lightning
import ray.train.torch
from torch.utils.data import DataLoader


def train_loop(config):
    train, held_out = churn.rows(config["file"])
    trainer = lightning.Trainer(
        max_epochs=3,
        strategy=ray.train.lightning.RayDDPStrategy(),
        plugins=[ray.train.lightning.RayLightningEnvironment()],
        callbacks=[ray.train.lightning.RayTrainReportCallback()],
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    trainer = ray.train.lightning.prepare_trainer(trainer)
    trainer.fit(churn.Churn(), DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=64))


if __name__ == "__main__":
    trainer = ray.train.torch.TorchTrainer(
        train_loop,
        train_loop_config={"file": str(Path(sys.argv[1]).resolve())},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
    )
    print(trainer.fit().metrics)
