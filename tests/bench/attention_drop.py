#!/usr/bin/env python3
"""What dropping attention layers costs and saves: for 0, 1, ... dropped (by LLM-Drop's cosine) the perplexity, the speed of generation and the KV cache per token.
Every cut is exported and the export is what runs, so absent layers compute and cache nothing.

    tests/bench/attention_drop.py --cli build/bin/resect-cli --checkpoint MODEL --data TEXT [--most 8] [--target attn|mlp|block|joint]
"""
import argparse
import json
import pathlib
import subprocess
import tempfile


def cli(options, *arguments):
    run = subprocess.run([options.cli, *map(str, arguments), "--json"], capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, arguments))}: exit code {run.returncode}\n{run.stderr}{run.stdout}")
    return json.loads(run.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", default="build/bin/resect-cli")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", default="attn", choices=("attn", "mlp", "block", "joint"))
    parser.add_argument("--most", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32, help="calibration rows of 256 tokens, from the end of the text")
    parser.add_argument("--eval-rows", type=int, default=64, help="rows for perplexity, from its beginning")
    parser.add_argument("--tokens", type=int, default=200, help="tokens to generate")
    parser.add_argument("--repeats", type=int, default=7, help="generations; the fastest counts, as other programs only slow it down")
    parser.add_argument("--prompt", default="Once upon a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = pathlib.Path(options.data).read_text()
        (folder / "calibration.txt").write_text(text[len(text) // 2:])
        (folder / "text.txt").write_text(text[:len(text) // 2])
        cli(options, "measure", "llm-drop", options.checkpoint, "--data", folder / "calibration.txt", "--max-rows", options.rows, "--workspace", folder / "w.resect",
            "--out", folder / "scores.h5")
        counts, rows = range(options.most + 1), {}
        for count in counts:
            plan, model = folder / f"plan{count}.json", folder / f"cut{count}"
            made = cli(options, "plan", "llm-drop", options.checkpoint, "--measure", folder / "scores.h5", "--set", f"target={options.target}", "--set", f"count={count}", "--out", plan)
            check = cli(options, "verdict", plan, options.checkpoint)
            cli(options, "export", options.checkpoint, "--plan", plan, "--to", model, "--way", "exact")
            rows[count] = (cli(options, "eval", model, "--dtype", "f32", "--data", folder / "text.txt", "--max-rows", options.eval_rows), check["after"], (made["notes"]["order"] or [""])[-1])
        # In turn, so that what else the machine does meets all of them.
        speeds = {count: 0 for count in counts}
        for _ in range(options.repeats):
            for count in counts:
                speed = cli(options, "generate", folder / f"cut{count}", "--dtype", "f32", "--prompt", options.prompt, "--max-new-tokens", options.tokens)["tokensPerSecond"]
                speeds[count] = max(speeds[count], speed)
        print(f"{'dropped':>8}{'perplexity':>12}{'95 % from':>11}{'to':>9}{'tokens/s':>10}{'KV bytes per token':>20}{'parameters':>12}  order")
        for count in counts:
            result, after, last = rows[count]
            # The check counts 16-bit elements; the cache of this run holds f32.
            print(f"{count:>8}{result['perplexity']:>12.4f}{result['perplexityLow']:>11.4f}{result['perplexityHigh']:>9.4f}{speeds[count]:>10.1f}{after['kvBytesPer1000'] / 1000 * 2:>20.0f}"
                  f"{after['parameters']:>12}  {last}")


if __name__ == "__main__":
    main()
