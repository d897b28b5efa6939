#!/usr/bin/env python3
"""The peer of the training-step benchmark: a Llama in plain PyTorch, laid out the way Hugging Face's eager LlamaForCausalLM computes it.

RMSNorm in float32, rotate_half, repeat_kv, scores and probabilities as T x T tensors with a float32 softmax, cross entropy on logits.float(),
torch.optim.AdamW, clip_grad_norm_. Prints one JSON line per measured call: {"seconds": ...}.
Commands on stdin, one per line: "train" or "forward" runs one; end of input ends.
"""
import argparse
import json
import sys
import time

import torch
from torch import nn
import torch.nn.functional as F


class RMSNorm(nn.Module):
    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * x.to(dtype)


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def repeat_kv(x, n):
    b, g, t, h = x.shape
    return x if n == 1 else x[:, :, None].expand(b, g, n, t, h).reshape(b, g * n, t, h)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.groups, self.dim = c.heads, c.kv_heads, c.head_dim
        self.q_proj = nn.Linear(c.width, c.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.width, bias=False)

    def forward(self, x, cos, sin, mask):
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.groups, self.dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.groups, self.dim).transpose(1, 2)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        k = repeat_kv(k, self.heads // self.groups)
        v = repeat_kv(v, self.heads // self.groups)
        scores = torch.matmul(q, k.transpose(2, 3)) / self.dim ** 0.5
        scores = scores + mask
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        out = torch.matmul(weights, v).transpose(1, 2).contiguous().reshape(b, t, -1)
        return self.o_proj(out)


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.width, c.ffn, bias=False)
        self.up_proj = nn.Linear(c.width, c.ffn, bias=False)
        self.down_proj = nn.Linear(c.ffn, c.width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c.width)
        self.post_attention_layernorm = RMSNorm(c.width)

    def forward(self, x, cos, sin, mask):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab, c.width)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.blocks))
        self.norm = RMSNorm(c.width)
        self.lm_head = nn.Linear(c.width, c.vocab, bias=False)
        if c.tied:
            self.lm_head.weight = self.embed_tokens.weight
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids, labels=None):
        t = ids.shape[1]
        x = self.embed_tokens(ids)
        inverse = 1.0 / (10000.0 ** (torch.arange(0, self.c.head_dim, 2).float() / self.c.head_dim))
        angles = torch.arange(t).float()[:, None] * inverse[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        mask = torch.full((t, t), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)[None, None].expand(ids.shape[0], 1, t, t)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        logits = self.lm_head(self.norm(x)).float()
        if labels is None:
            return logits
        shifted = logits[..., :-1, :].contiguous()
        return F.cross_entropy(shifted.view(-1, shifted.shape[-1]), labels[..., 1:].contiguous().view(-1))


def main():
    parser = argparse.ArgumentParser()
    for name in ("width", "blocks", "heads", "kv_heads", "head_dim", "ffn", "vocab", "batch", "tokens"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, required=True)
    parser.add_argument("--tied", type=int, default=1)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--threads", type=int, default=0)
    c = parser.parse_args()
    if c.threads:
        torch.set_num_threads(c.threads)
    torch.manual_seed(0)
    model = Llama(c)
    if c.dtype == "bf16":
        model = model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    ids = torch.randint(c.vocab, (c.batch, c.tokens))

    def train():
        optimizer.zero_grad(set_to_none=True)
        loss = model(ids, labels=ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def forward():
        with torch.no_grad():
            return model(ids).sum().item()

    print(json.dumps({"ready": sum(p.numel() for p in model.parameters())}), flush=True)
    for line in sys.stdin:
        work = {"train": train, "forward": forward}[line.strip()]
        start, cpu = time.perf_counter(), time.process_time()
        value = work()
        print(json.dumps({"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "value": value}), flush=True)


if __name__ == "__main__":
    main()
