#!/usr/bin/env python3
"""The peer of the evaluation benchmark: perplexity of a Llama checkpoint in plain PyTorch (see peer_llama.py), rows in batches.

Reads --checkpoint (one safetensors file) and --rows (JSON lines {"input_ids"} of one length). Each line on stdin runs one evaluation and
prints {"seconds", "tokens", "perplexity"}; end of input ends.
"""
import argparse
import json
import math
import pathlib
import sys
import time
import types

import torch
import torch.nn.functional as F

from peer_llama import Llama


def tensors(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[entry["dtype"]]
        yield name, torch.frombuffer(bytearray(data[8 + length + begin:8 + length + end]), dtype=kind).view(entry["shape"]).float()


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"]
    shape = types.SimpleNamespace(width=config["hidden_size"], blocks=config["num_hidden_layers"], heads=heads, kv_heads=config["num_key_value_heads"],
                                  head_dim=config.get("head_dim") or config["hidden_size"] // heads, ffn=config["intermediate_size"],
                                  vocab=config["vocab_size"], tied=config["tie_word_embeddings"])
    model = Llama(shape)
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = config["rms_norm_eps"]
    state = model.state_dict()
    for name, value in tensors(folder / "model.safetensors"):
        state[name.removeprefix("model.")] = value
    if shape.tied:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    model.load_state_dict(state)
    return model.eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--rows", type=pathlib.Path, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load(options.checkpoint)
    if options.dtype == "bf16":
        model = model.to(torch.bfloat16)
    rows = torch.tensor([json.loads(line)["input_ids"] for line in options.rows.read_text().splitlines()])
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start, loss, count = time.perf_counter(), 0.0, 0
        with torch.no_grad():
            for first in range(0, len(rows), options.batch):
                ids = rows[first:first + options.batch]
                logits = model(ids)
                loss += F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="sum").item()
                count += ids[:, 1:].numel()
        print(json.dumps({"seconds": time.perf_counter() - start, "tokens": rows.numel(), "perplexity": math.exp(loss / count)}), flush=True)


if __name__ == "__main__":
    main()
