#include "core/export/verify_script.h"

namespace resect {

std::string verifyScript() {
    return R"(#!/usr/bin/env python3
"""Opens this checkpoint with transformers and compares it with what Resect computed when it wrote the folder.

    python verify_export.py [--tolerance 0.02]

Needs torch and transformers. Prints the largest difference of a log-probability among the likeliest tokens of each position; exits with 1
when it is above the tolerance. Checkpoints in 16-bit types differ by their rounding: allow 0.1.
"""
import argparse
import json
import pathlib
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--trust-remote-code", action="store_true", help="for folders that carry Python files")
    options = parser.parse_args()
    folder = pathlib.Path(__file__).resolve().parent
    sample = json.loads((folder / "verify_export.json").read_text())

    import torch
    import transformers
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, trust_remote_code=options.trust_remote_code)
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([sample["input_ids"]])).logits[0].float()
    found = torch.log_softmax(logits, -1)
    largest = 0.0
    for position, (ids, expected) in enumerate(zip(sample["top_ids"], sample["top_log_probabilities"])):
        for token, value in zip(ids, expected):
            largest = max(largest, abs(found[position, token].item() - value))
    good = largest <= options.tolerance
    print(f"transformers {transformers.__version__}: {len(sample['input_ids'])} tokens, largest difference {largest:.2e}:",
          "the same model" if good else f"above {options.tolerance}: NOT the same")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
)";
}

}  // namespace resect
