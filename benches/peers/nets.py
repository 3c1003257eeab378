#!/usr/bin/env python3
"""Whole nets, forward, in float32, from NCHW images to scores, in PyTorch (both memory formats), ONNX Runtime, OpenVINO,
ncnn (one image only) and rectify, by turns.

    python3 benches/peers/nets.py --threads 1 --batch 1 --json nets.jsonl --table nets.md --chart nets.svg

Speeds are images a second. Every engine has random weights of its own or shares PyTorch's; batch norm has the statistics
of inference, and every engine may fold it.
"""

import common


def main():
    engines = ["torch", "torch-cl", "onnxruntime", "openvino", "ncnn", "rectify"]
    options = common.parser(__doc__, engines, 2.0)
    options.add_argument("--model", action="append", help="cifar13, e14, a19 or iresnet18; may be repeated; default all")
    options.add_argument("--batch", type=int, default=1, help="images in a batch (default 1)")
    args = common.parse(options)
    import models
    import torch
    for name in args.model or models.SIZES:
        if name not in models.SIZES:
            options.error(f"unknown model {name!r}: expected {', '.join(models.SIZES)}")
    report = common.Report(args, f"images/s, batch {args.batch}")
    for name in args.model or models.SIZES:
        torch.manual_seed(0)
        side, _ = models.SIZES[name]
        net, x = models.build(name).eval(), torch.randn(args.batch, 3, side, side)

        def ours(seconds, check):
            r = common.rectify(args, "bench-infer", "--model", name, "--batch", args.batch, "--seconds", seconds,
                               *["--check"] * check)
            return r["s_per_batch"], r["max_rel_err"]
        results, failures = common.compare(name, net, x, args, ours)
        for r in results:
            r.update(batch=args.batch, speed=args.batch / r["median_s"])
        report.add(results, failures)
    report.finish()


if __name__ == "__main__":
    main()
