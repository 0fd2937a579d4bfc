import sys

import datasets
from transformers import BertConfig, BertForSequenceClassification

import headway
from headway.adapters.huggingface import HuggingFace


class Classify(HuggingFace):
    def model(self):
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        return BertForSequenceClassification(BertConfig(vocab_size=100, **sizes))

    def metrics(self, model, batch):
        return {"accuracy": (model(**batch).logits.argmax(1) == batch["labels"]).float().mean()}


if __name__ == "__main__":
    rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train").with_format("torch")
    parts = rows.train_test_split(0.25, seed=0)
    job = {"name": "classify", "lanes": 2, "lane_batch": 16, "epochs": 2}
    data = {"train": parts["train"], "validation": parts["test"]}
    print(headway.train(job, task=Classify, data=data, address="in-process").metrics)
