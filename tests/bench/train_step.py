#!/usr/bin/env python3
"""Times one training step (forward, backward, clipping, AdamW) and one forward pass of Resect against the same in Python PyTorch.

Both sides run in one go, step by step in turn, so that whatever else the machine does hits both. The peer runs once at its defaults and once
at the best of several thread, wait-policy and allocator settings, which a short sweep finds first. Prints a table of medians; a ratio
below 1 means that Resect is faster.

    tests/bench/train_step.py --ours build/bin/bench_train_step [--steps 7] [--cases 96,512] [--dtypes f32,bf16] [--json OUT.json]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

CASES = {
    "96": dict(width=96, blocks=12, heads=6, kv_heads=2, head_dim=16, ffn=256, vocab=512, batch=16, tokens=256, tied=1),
    "512": dict(width=512, blocks=8, heads=8, kv_heads=8, head_dim=64, ffn=1376, vocab=512, batch=4, tokens=512, tied=0),
    "512v32k": dict(width=512, blocks=8, heads=8, kv_heads=8, head_dim=64, ffn=1376, vocab=32000, batch=4, tokens=512, tied=0),
}
# glibc's allocator told to keep what is freed: no mapping of large blocks, no trimming.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "67108864"}
SETTINGS = {
    "defaults": ({}, 0),
    "malloc": (MALLOC, 0),
    "malloc, passive": ({**MALLOC, "OMP_WAIT_POLICY": "PASSIVE"}, 0),
    "malloc, 1 thread": ({**MALLOC, "OPENBLAS_NUM_THREADS": "1"}, 1),
    "malloc, 2 threads": (MALLOC, 2),
    "malloc, 2 threads, passive": ({**MALLOC, "OMP_WAIT_POLICY": "PASSIVE"}, 2),
    "malloc, 2 threads, BLAS 1": ({**MALLOC, "OPENBLAS_NUM_THREADS": "1"}, 2),
}


class Side:
    def __init__(self, program, case, dtype, environment, threads):
        command = program + [text for name, value in case.items() for text in ("--" + name.replace("_", "-"), str(value))]
        command += ["--dtype", dtype, "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        self.parameters = json.loads(self.process.stdout.readline())["ready"]

    def run(self, work):
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def interleave(sides, work, steps):
    """Median and least seconds of each side, one warm-up call first."""
    times = {name: [] for name in sides}
    for step in range(steps + 1):
        for name, side in sides.items():
            seconds = side.run(work)["seconds"]
            if step > 0:
                times[name].append(seconds)
    return {name: (statistics.median(values), min(values)) for name, values in times.items()}


def sweep(peer, case, dtype):
    """The peer's fastest setting for the training step."""
    best = None
    for name, (environment, threads) in SETTINGS.items():
        side = Side(peer, case, dtype, environment, threads)
        side.run("train")
        seconds = min(side.run("train")["seconds"] for _ in range(3))
        side.close()
        if best is None or seconds < best[1]:
            best = (name, seconds)
    return best[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--cases", default="96,512")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--threads", type=int, default=0, help="of our side; 0 = its default")
    parser.add_argument("--json")
    options = parser.parse_args()
    peer = [options.python, str(pathlib.Path(__file__).with_name("peer_llama.py"))]
    rows = []
    print(f"{'case':8} {'dtype':5} {'work':8} {'ours tok/s':>10} {'peer tok/s':>10} {'ratio':>6} {'least':>6}  peer setting")
    for case_name in options.cases.split(","):
        case = CASES[case_name]
        tokens = case["batch"] * case["tokens"]
        for dtype in options.dtypes.split(","):
            best = sweep(peer, case, dtype)
            sides = {"ours": Side([options.ours], case, dtype, {}, options.threads)}
            for name in dict.fromkeys(["defaults", best]):
                sides[name] = Side(peer, case, dtype, *SETTINGS[name])
            if len({side.parameters for side in sides.values()}) != 1:
                sys.exit("the two sides do not have the same number of parameters")
            for work in ("train", "forward"):
                times = interleave(sides, work, options.steps)
                for name in sides:
                    if name == "ours":
                        continue
                    ratio, least = times["ours"][0] / times[name][0], times["ours"][1] / times[name][1]
                    rows.append(dict(case=case_name, dtype=dtype, work=work, setting=name, ratio=ratio, ours=times["ours"], peer=times[name]))
                    label = name + (" (its best)" if name == best else "")
                    print(f"{case_name:8} {dtype:5} {work:8} {tokens / times['ours'][0]:10.0f} {tokens / times[name][0]:10.0f} "
                          f"{ratio:6.2f} {least:6.2f}  {label}", flush=True)
            for side in sides.values():
                side.close()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
