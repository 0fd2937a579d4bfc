"""Predictions in a plain loop: python bare.py WEIGHTS ROWS.parquet OUT.parquet"""

import sys

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

COLUMNS = [f"x{number}" for number in range(16)]
net = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
net.load_state_dict(torch.load(sys.argv[1]))
net.eval()
schema = pa.schema({"probability": pa.float32()})
with torch.inference_mode(), pq.ParquetWriter(sys.argv[3], schema) as out:
    for rows in pq.ParquetFile(sys.argv[2]).iter_batches(4096, columns=COLUMNS):
        x = torch.from_numpy(numpy.stack([rows[name].to_numpy() for name in COLUMNS], 1))
        out.write_table(pa.table({"probability": net(x).softmax(1)[:, 1].numpy()}, schema))
