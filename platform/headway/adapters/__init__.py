"""Models of other frameworks as tasks: a `transformers` model (`huggingface`), a LightningModule (`lightning`).

Each needs its framework, which Headway itself does without: `pip install headway[huggingface]`, `headway[lightning]`.
"""
