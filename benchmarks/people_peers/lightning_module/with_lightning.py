import sys

import churn
import lightning
from torch.utils.data import DataLoader

if __name__ == "__main__":
    train, held_out = churn.rows(sys.argv[1])
    trainer = lightning.Trainer(max_epochs=3)
    trainer.fit(churn.Churn(), DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=64))
    print(trainer.callback_metrics)
