#!/usr/bin/env python3
"""What each importance criterion costs: the same share of the MLP channels is cut from every block by each criterion, and the perplexity of what is left is
measured by a masked run. The calibration rows and the rows for perplexity are different rows of the text.

    tests/bench/importance_criteria.py --cli build/bin/resect-cli --checkpoint MODEL --data TEXT [--ratio 0.25] [--rows 32] [--eval-rows 64]
"""
import argparse
import pathlib
import tempfile

from attention_drop import cli

METRICS = ("magnitude", "activation", "rms", "wanda", "ifv", "wifv", "flap", "gate", "gate_token", "gate_batch", "taylor", "taylor_vector", "taylor2", "taylor_mix", "loo")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", default="build/bin/resect-cli")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", default="channels", choices=("channels", "heads", "kv_groups"))
    parser.add_argument("--ratio", type=float, default=0.25)
    parser.add_argument("--scope", default="per_block", choices=("per_block", "global"))
    parser.add_argument("--rounding", type=int, default=1)
    parser.add_argument("--rows", type=int, default=32, help="calibration rows of 256 tokens, from the end of the text")
    parser.add_argument("--eval-rows", type=int, default=64, help="rows for perplexity, from its beginning")
    parser.add_argument("--loo-rows", type=int, default=0, help="rows for exact ablation (0 = leave it out: one pass for every unit)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = pathlib.Path(options.data).read_text()
        (folder / "calibration.txt").write_text(text[len(text) // 2:])
        (folder / "text.txt").write_text(text[:len(text) // 2])
        scores = folder / "scores.h5"
        common = ("measure", "importance", options.checkpoint, "--data", folder / "calibration.txt", "--workspace", folder / "w.resect")
        cli(options, *common, "--max-rows", options.rows, "--set", "gradients=rows", "--out", scores)
        if options.loo_rows:
            cli(options, *common, "--max-rows", options.loo_rows, "--set", f"ablation={options.target}", "--out", folder / "loo.h5")
        lines, uncut = [], None
        for metric in METRICS:
            if metric == "loo" and not options.loo_rows:
                continue
            plan = folder / f"{metric}.json"
            cli(options, "plan", "importance", options.checkpoint, "--measure", folder / "loo.h5" if metric == "loo" else scores, "--set", f"target={options.target}",
                "--set", f"metric={metric}", "--set", f"ratio={options.ratio}", "--set", f"scope={options.scope}", "--set", f"rounding={options.rounding}", "--out", plan)
            result = cli(options, "preview", plan, options.checkpoint, "--data", folder / "text.txt", "--max-rows", options.eval_rows)
            uncut = result
            lines.append((result["perplexity"], metric, result))
        print(f"{options.ratio:.0%} of the {options.target} cut, {options.scope}; perplexity on {uncut['rowsDone']} rows of 256 tokens; uncut {uncut['baseline']:.4f}")
        print(f"{'criterion':<15}{'perplexity':>12}{'95 % from':>12}{'to':>10}{'KL':>10}")
        for perplexity, metric, result in sorted(lines, key=lambda line: line[0]):
            print(f"{metric:<15}{perplexity:>12.4f}{result['perplexityLow']:>12.4f}{result['perplexityHigh']:>10.4f}{result['kl']:>10.4f}")


if __name__ == "__main__":
    main()
