#!/usr/bin/env python3
"""The accuracy that cifar-small reaches in PyTorch and in rectify: for each seed the same initial weights, images and
hyper-parameters; order, augmentation and dropout drawn by each engine itself, in the same way.

    python3 benches/peers/seeds.py --data PATH --threads 2 --json seeds.jsonl --table seeds.md

`PATH` is a folder of CIFAR-10, as for curve.py. Ends with 1 if the mean accuracies differ by more than the accuracies of
one engine's seeds do: the larger one of both engines' ranges.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

import common
import curve

MODEL = "cifar-small"
# What the model leaves to rectify's defaults.
MOMENTUM, DECAY = 0.9, 5e-4


def varied(x, crop):
    """Each image mirrored or not, shifted by up to `crop` pixels on each axis; outside it is 0, the mean."""
    import torch
    n, side = len(x), x.shape[2]
    flip = torch.rand(n) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    x = torch.nn.functional.pad(x, (crop,) * 4)
    rows, columns = (torch.randint(0, 2 * crop + 1, (n, 1)) + torch.arange(side) for _ in range(2))
    at = torch.arange(n)[:, None, None, None]
    return x[at, torch.arange(3)[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def torch_run(net, train, test, training):
    """Test accuracy and loss after each epoch."""
    import torch
    (x, labels), batch, epochs = train, training["batch"], training["epochs"]
    net = net.to(memory_format=torch.channels_last)
    optimizer = curve.optimizer_of(net, training["lr"], MOMENTUM, DECAY)
    steps, scores = len(x) // batch, []
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        for step in range(steps):
            done = (epoch * steps + step) / (epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = training["lr"] * 0.5 * (1 + math.cos(math.pi * done))
            chosen = order[step * batch:(step + 1) * batch]
            images = varied(x[chosen], training["crop"]).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(images), labels[chosen]).backward()
            optimizer.step()
        net.eval()
        with torch.inference_mode():
            y = torch.cat([net(images) for images in test[0].split(500)])
            scores.append((float((y.argmax(1) == test[1]).float().mean()),
                           float(torch.nn.functional.cross_entropy(y, test[1]))))
        net.train()
    return scores


def rectify_run(args, training, seed, folder):
    """Likewise, from the weights and on the images that lie in the folder."""
    out = folder / f"run-{seed}"
    command = [args.rectify, "train", "--model", MODEL, "--data", folder / "data", "--weights", folder / "init.safetensors",
               "--epochs", training["epochs"], "--momentum", MOMENTUM, "--weight-decay", DECAY, "--seed", seed,
               "--threads", args.threads, "--out", out]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr.strip() or f"rectify ended with {done.returncode}")
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [(r["test_accuracy"], r["test_loss"]) for r in map(json.loads, lines)]


def load(folder, half):
    """Labels and pixels, and the bytes of the records."""
    import numpy
    data = b"".join(read() for read in curve.records(folder, half))
    array = numpy.frombuffer(data, numpy.uint8).reshape(-1, curve.RECORD)
    return array[:, 0].astype(numpy.int64), array[:, 1:].reshape(-1, 3, 32, 32), data


def table(accuracies):
    """In Markdown: a row a seed, then means and spreads, in percent."""
    rows = [["seed", "torch", "rectify", "difference"]]
    percent = lambda v: f"{100 * v:.2f}"
    for seed in accuracies["torch"]:
        a, b = accuracies["torch"][seed], accuracies["rectify"][seed]
        rows.append([str(seed), percent(a), percent(b), f"{100 * (b - a):+.2f}"])
    values = [list(accuracies[engine].values()) for engine in ("torch", "rectify")]
    for name, f in (("mean", statistics.mean), ("standard deviation", lambda v: statistics.stdev(v) if len(v) > 1 else 0.0),
                    ("range", lambda v: max(v) - min(v))):
        a, b = map(f, values)
        rows.append([name, percent(a), percent(b), f"{100 * (b - a):+.2f}" if name == "mean" else ""])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|---|", *lines[1:]]) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=pathlib.Path, required=True, metavar="PATH", help="a folder of CIFAR-10")
    p.add_argument("--epochs", type=int, help="epochs (default: the model's)")
    p.add_argument("--seeds", type=int, default=3, help="runs of each engine, of seeds 1, 2 and so on (default 3)")
    p.add_argument("--threads", type=int, default=1, help="threads of either engine (default 1)")
    p.add_argument("--rectify", default=common.ROOT / "target/release/rectify", metavar="FILE", help="the rectify command")
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="a line of JSON for each run")
    p.add_argument("--table", type=pathlib.Path, metavar="FILE", help="the table in Markdown, which is printed too")
    args = p.parse_args()
    if args.seeds < 1 or args.threads < 1 or (args.epochs is not None and args.epochs < 1):
        p.error("--seeds, --threads and --epochs must be at least 1")
    import models
    import torch
    from torch import nn
    torch.set_num_threads(args.threads)
    training = tomllib.loads((common.ROOT / f"src/model/builtin/{MODEL}.toml").read_text())["training"]
    training["epochs"] = args.epochs or training["epochs"]
    known = {"epochs", "batch", "lr", "schedule", "flip", "crop"}
    if set(training) != known or training["schedule"] != "cosine" or not training["flip"]:
        sys.exit(f"{MODEL} is trained in a way that this script does not know: {training}")
    labels, pixels, data = load(args.data, "train")
    test_labels, test_pixels, test_data = load(args.data, "test")
    train = torch.from_numpy(curve.normalised(pixels, pixels)), torch.from_numpy(labels)
    test = torch.from_numpy(curve.normalised(test_pixels, pixels)), torch.from_numpy(test_labels)
    engines = ("torch", "rectify")
    accuracies = {engine: {} for engine in engines}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        curve.save_data(data, test_data, folder / "data")
        log = open(args.json, "w") if args.json else None
        for seed in range(1, args.seeds + 1):
            torch.manual_seed(seed)
            net = models.build(MODEL)
            for module in net.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.init.zeros_(module.bias)
            curve.save(curve.tensors(net), folder / "init.safetensors")
            runs = dict(rectify=lambda: rectify_run(args, training, seed, folder),
                        torch=lambda: torch_run(net, train, test, training))
            for engine, run in runs.items():
                start = time.perf_counter()
                scores = run()
                seconds = time.perf_counter() - start
                accuracies[engine][seed] = scores[-1][0]
                print(f"seed {seed}, {engine}: accuracy {100 * scores[-1][0]:.2f} %, test loss {scores[-1][1]:.4f}", flush=True)
                record = dict(seed=seed, engine=engine, epochs=training["epochs"], threads=args.threads, seconds=seconds,
                              test_accuracy=[a for a, _ in scores], test_loss=[loss for _, loss in scores])
                if log:
                    print(json.dumps(record), file=log, flush=True)
    means = [statistics.mean(accuracies[engine].values()) for engine in engines]
    spread = max(max(a.values()) - min(a.values()) for a in accuracies.values())
    text = (f"Test accuracy in percent: {MODEL}, {training['epochs']} epochs, torch {torch.__version__} and rectify.\n\n"
            + table(accuracies) + f"\nThe means differ by {100 * abs(means[1] - means[0]):.2f}, the seeds of one engine by up to "
            f"{100 * spread:.2f}.\n")
    print(text)
    if args.table:
        args.table.write_text(text)
    sys.exit(0 if abs(means[1] - means[0]) <= spread else 1)


if __name__ == "__main__":
    main()
