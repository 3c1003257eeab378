#!/usr/bin/env python3
"""Training steps (forward, cross-entropy, backward, SGD with momentum and weight decay) in float32, in PyTorch (both
memory formats) and rectify, by turns, each turn a process of its own.

    python3 benches/peers/train.py --threads 2 --batch 64 --json train.jsonl --table train.md --chart train.svg

Speeds are images a second. Of PyTorch's formats the faster one counts. `peak_mib` is the most memory of any turn.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

import common


def step_seconds(args, name):
    """Times PyTorch's steps; prints a record. Runs in a process of its own."""
    import models
    import torch
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    layout = torch.channels_last if args.turn == "torch-cl" else torch.contiguous_format
    net, (side, classes) = models.build(name).to(memory_format=layout), models.SIZES[name]
    x = torch.randn(args.batch, 3, side, side).to(memory_format=layout)
    labels = torch.randint(0, classes, (args.batch,))
    # Biases and slopes do not decay, as in rectify.
    decay = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    groups = [dict(params=decay, weight_decay=5e-4), dict(params=others, weight_decay=0)]
    optimizer = torch.optim.SGD(groups, lr=1e-6, momentum=0.9, fused=args.sgd == "fused" or None)

    def step():
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
        return time.perf_counter() - start
    step()
    seconds = statistics.median(step() for _ in range(args.steps))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(s_per_step=seconds, peak_mib=peak)))


def turn(args, name, engine):
    """One engine's turn: its record."""
    if engine == "rectify":
        return common.rectify(args, "bench-train", "--model", name, "--batch", args.batch, "--steps", args.steps)
    command = [sys.executable, __file__, "--turn", engine, "--model", name, "--batch", args.batch, "--steps", args.steps,
               "--threads", args.threads, "--sgd", args.sgd]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-300:] or f"ended with {done.returncode}")
    return json.loads(done.stdout)


def main():
    options = common.parser(__doc__, ["torch", "torch-cl", "rectify"], 0)
    options.add_argument("--model", action="append", help="cifar13, e14 or a19; may be repeated; default cifar13")
    options.add_argument("--batch", type=int, default=64, help="images a step (default 64)")
    options.add_argument("--steps", type=int, default=3, help="steps of a turn, after one that is not timed (default 3)")
    options.add_argument("--sgd", choices=["fused", "default"], default="fused",
                         help="PyTorch's optimiser step: its fastest, or what it takes unasked (default fused)")
    options.add_argument("--turn", help=common.argparse.SUPPRESS)
    args = common.parse(options)
    names = args.model or ["cifar13"]
    for name in names:
        if name not in ("cifar13", "e14", "a19"):
            options.error(f"unknown model {name!r}: expected cifar13, e14 or a19")
    if args.turn:
        return step_seconds(args, names[0])
    report = common.Report(args, f"images/s, batch {args.batch}", 2)
    for name in names:
        records, failures = {engine: [] for engine in args.only}, []

        def take(engine):
            try:
                records[engine].append(turn(args, name, engine))
                return records[engine][-1]["s_per_step"]
            except RuntimeError as e:
                failures.append(f"{name}, {engine}: {' '.join(str(e).split())}")
                return float("nan")
        seconds = common.alternate({e: lambda e=e: take(e) for e in args.only}, args.rounds)
        results = [dict(name=name, engine=e, threads=args.threads, batch=args.batch, steps=args.steps,
                        median_s=statistics.median(s), rounds_s=s, speed=args.batch / statistics.median(s),
                        peak_mib=max((r["peak_mib"] for r in records[e] if r["peak_mib"]), default=None))
                   for e, s in seconds.items() if all(x == x for x in s)]
        report.add(results, failures)
    report.finish()


if __name__ == "__main__":
    main()
