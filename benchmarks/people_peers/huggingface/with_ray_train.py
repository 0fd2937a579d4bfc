import sys
import tempfile
from pathlib import Path

import datasets
import ray.train
import ray.train.torch
import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification


def train_loop(config):
    rows = datasets.load_dataset("json", data_files=config["file"], split="train").with_format("torch")
    parts = rows.train_test_split(0.25, seed=0)
    train = ray.train.torch.prepare_data_loader(DataLoader(parts["train"], batch_size=32, shuffle=True))
    held_out = ray.train.torch.prepare_data_loader(DataLoader(parts["test"], batch_size=32))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = ray.train.torch.prepare_model(BertForSequenceClassification(BertConfig(vocab_size=100, **sizes)))
    optimizer = torch.optim.AdamW(model.parameters())
    for epoch in range(2):
        if ray.train.get_context().get_world_size() > 1:
            train.sampler.set_epoch(epoch)
        model.train()
        for batch in train:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = torch.cat([model(**batch).logits.argmax(1) == batch["labels"] for batch in held_out])
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder, "model.pt"))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"accuracy": right.float().mean().item()}, checkpoint=checkpoint)


if __name__ == "__main__":
    trainer = ray.train.torch.TorchTrainer(
        train_loop,
        train_loop_config={"file": str(Path(sys.argv[1]).resolve())},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
    )
    print(trainer.fit().metrics)
