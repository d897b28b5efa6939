#!/usr/bin/env python3
"""Times the evaluation of perplexity by resect-cli against the same model and rows in Python PyTorch, in turn in one go.

The peer runs at its defaults and at the fastest of several thread, wait-policy and allocator settings (found first); reading the checkpoint
and starting up count on neither side. Prints tokens per second and the ratio of times: below 1 means that Resect is faster.

    tests/bench/eval_throughput.py --ours build/bin/resect-cli --checkpoint MODEL --data TEXT [--rows 128] [--repeats 5] [--dtypes f32,bf16]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

from train_step import SETTINGS

ROW = 256


class Peer:
    def __init__(self, options, rows, dtype, setting):
        environment, threads = SETTINGS[setting]
        script = pathlib.Path(__file__).with_name("peer_eval.py")
        self.process = subprocess.Popen([options.python, str(script), "--checkpoint", options.checkpoint, "--rows", rows, "--dtype", dtype,
                                         "--threads", str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **environment})
        self.process.stdout.readline()

    def run(self):
        self.process.stdin.write("eval\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ours(options, rows, dtype):
    text = subprocess.run([options.ours, "eval", options.checkpoint, "--data", rows, "--layout", "padded", "--row-length", str(ROW), "--dtype", dtype,
                           "--json"], capture_output=True, text=True, check=True).stdout
    result = json.loads(text)
    return {"seconds": result["rowsDone"] * ROW / result["tokensPerSecond"], "tokens": result["rowsDone"] * ROW, "perplexity": result["perplexity"]}


def token_rows(options, path):
    """Rows of running text for both sides."""
    text = pathlib.Path(options.data).read_text()[:options.rows * ROW * 16]
    row = json.dumps({"text": text}) + "\n"
    out = subprocess.run([options.ours, "tokenize", options.checkpoint, "--no-special"], input=row, capture_output=True, text=True, check=True).stdout
    ids = json.loads(out.splitlines()[0])["ids"]
    rows = [ids[i * ROW:(i + 1) * ROW] for i in range(min(options.rows, len(ids) // ROW))]
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtypes", default="f32,bf16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = pathlib.Path(folder) / "rows.jsonl"
        token_rows(options, rows)
        print(f"{'dtype':5} {'ours tok/s':>10} {'peer tok/s':>10} {'ratio':>6} {'least':>6}  {'perplexity ours, peer':22}  peer setting")
        for dtype in options.dtypes.split(","):
            speed = {}
            for setting in SETTINGS:
                peer = Peer(options, str(rows), dtype, setting)
                peer.run()
                speed[setting] = peer.run()["seconds"]
                peer.close()
            best = min(speed, key=speed.get)
            peers = {name: Peer(options, str(rows), dtype, name) for name in dict.fromkeys(["defaults", best])}
            results = {name: [] for name in ["ours", *peers]}
            for repeat in range(options.repeats + 1):
                for name in results:
                    result = ours(options, str(rows), dtype) if name == "ours" else peers[name].run()
                    if repeat > 0:
                        results[name].append(result)
            rate = {name: [r["tokens"] / r["seconds"] for r in list_] for name, list_ in results.items()}
            for name, peer in peers.items():
                median, most = (lambda side: statistics.median(rate[side])), (lambda side: max(rate[side]))
                pair = f"{results['ours'][0]['perplexity']:.4f}, {results[name][0]['perplexity']:.4f}"
                print(f"{dtype:5} {median('ours'):10.0f} {median(name):10.0f} {median(name) / median('ours'):6.2f} {most(name) / most('ours'):6.2f}  {pair:22}  "
                      f"{name}{' (its best)' if name == best else ''}", flush=True)
                peer.close()


if __name__ == "__main__":
    main()
