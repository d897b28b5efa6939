#include "core/export/verify_script.h"

namespace resect {

std::string verifyScript() {
    return R"(#!/usr/bin/env python3
"""Opens this checkpoint with transformers and compares it with what Resect computed when it wrote the folder.

    python verify_export.py [--tolerance 0.02]

Needs torch and transformers. Prints the largest difference of a log-probability among the likeliest tokens (or labels) of each position;
exits with 1 when it is above the tolerance. Checkpoints in 16-bit types differ by their rounding: allow 0.1.
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
    loader = getattr(transformers, sample["class"])
    model = loader.from_pretrained(folder, torch_dtype=torch.float32, trust_remote_code=options.trust_remote_code)
    model.eval()
    inputs = {}
    if "input_ids" in sample:
        inputs["input_ids"] = torch.tensor([sample["input_ids"]])
    if "picture" in sample:
        channels, height, width = sample["picture"]
        c = torch.arange(1, channels + 1, dtype=torch.float64).view(-1, 1, 1)
        x = 0.1 * torch.arange(width, dtype=torch.float64).view(1, 1, -1)
        y = 0.07 * torch.arange(height, dtype=torch.float64).view(1, -1, 1)
        inputs["pixel_values"] = torch.sin(c * x + y).float().unsqueeze(0)
    with torch.no_grad():
        outputs = model(**inputs)
    if "similarity" in sample:
        largest = abs(outputs.logits_per_image[0, 0].item() - sample["similarity"])
        compared = "one picture and one text"
    else:
        logits = outputs.logits[0].float()
        found = torch.log_softmax(logits.view(-1, logits.shape[-1]), -1)
        largest = 0.0
        for position, (ids, expected) in enumerate(zip(sample["top_ids"], sample["top_log_probabilities"]), sample["first_position"]):
            for token, value in zip(ids, expected):
                largest = max(largest, abs(found[position, token].item() - value))
        compared = f"{len(sample['top_ids'])} positions"
    good = largest <= options.tolerance
    print(f"transformers {transformers.__version__}: {compared}, largest difference {largest:.2e}:",
          "the same model" if good else f"above {options.tolerance}: NOT the same")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
)";
}

}  // namespace resect
