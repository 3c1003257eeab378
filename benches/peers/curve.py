#!/usr/bin/env python3
"""The loss of the first steps of training in PyTorch and in rectify: same weights, same images in the same order, same
hyper-parameters (SGD with momentum and weight decay, biases and slopes undecayed), float32.

    python3 benches/peers/curve.py --data PATH --threads 2

`PATH` is a folder of CIFAR-10: its files in binary form, or train/CLASS/*.jpg|png (and PIL). The images of all steps are
drawn once, written in binary form, and trained on as they lie there. PyTorch in float64 goes along: how far each engine is
from it says what rounding alone does. Ends with 1 if a loss of rectify is off by more than the tolerance.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import common

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Bytes of a record: the label and 3×32×32 values.
RECORD = 3073


def records(folder, half="train"):
    """All images of a half (`train` or `test`) as records of CIFAR-10's binary form, in any fixed order; from pictures,
    lazily."""
    binary = sorted(folder.glob("data_batch_*.bin" if half == "train" else "test_batch.bin"))
    if binary:
        data = b"".join(path.read_bytes() for path in binary)
        return [lambda at=at: data[at:at + RECORD] for at in range(0, len(data), RECORD)]
    import numpy
    from PIL import Image

    def read(label, path):
        pixels = numpy.asarray(Image.open(path).convert("RGB"), dtype=numpy.uint8)
        if pixels.shape != (32, 32, 3):
            sys.exit(f"{path}: {pixels.shape} is not 32×32")
        return bytes([label]) + pixels.transpose(2, 0, 1).tobytes()
    classes = sorted(path for path in (folder / half).iterdir() if path.is_dir())
    if len(classes) != 10:
        sys.exit(f"{folder}: neither CIFAR-10's binary files nor ten folders in {half}")
    return [lambda label=label, path=path: read(label, path)
            for label, folder in enumerate(classes) for path in sorted(folder.iterdir())]


def save_data(train, test, folder):
    """Writes images, bytes of whole records, as a data set in CIFAR-10's binary form, in that order."""
    folder.mkdir()
    count = len(train) // RECORD
    # Five files, as the format has them, whole records each.
    cuts = [count * i // 5 * RECORD for i in range(6)]
    for i in range(5):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(train[cuts[i]:cuts[i + 1]])
    (folder / "test_batch.bin").write_bytes(test)


def tensors(net):
    """The parameters under rectify's names: those of two sequences, one up to the first fully connected layer."""
    from torch import nn
    layers = list(net.net)
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    part = lambda i: f"features.{i}" if i < first else f"classifier.{i - first}"
    return {f"{part(i)}.{name}": p for i, layer in enumerate(layers) for name, p in layer.named_parameters()}


def normalised(pixels, training):
    """Images as rectify normalises them: by mean and deviation of the training images, each value rounded once."""
    import numpy
    levels = numpy.arange(256) / 255
    out = numpy.empty(pixels.shape, numpy.float32)
    for channel in range(3):
        counts = numpy.bincount(training[:, channel].reshape(-1), minlength=256)
        mean = numpy.float32((counts * levels).sum() / counts.sum())
        std = numpy.float32(numpy.sqrt((counts * (levels - (counts * levels).sum() / counts.sum()) ** 2).sum() / counts.sum()))
        out[:, channel] = ((levels - numpy.float64(mean)) / std).astype(numpy.float32)[pixels[:, channel]]
    return out


def condition(net):
    """Weights that neither blow the signal up (He et al. 2015, Eq. 15 with slopes of 0.25) nor start with large scores.

    With large ones the first steps are chaotic: PyTorch in float32 is then off by half a percent from itself in float64
    after ten steps, since a rounding now and then turns a rectifier or a maximum over."""
    import torch
    from torch import nn
    with torch.no_grad():
        layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, a=0.25)
            layer.bias.zero_()
        layers[-1].weight *= 0.1


def save(named, path):
    """A safetensors file: the length of a header, the header in JSON, the numbers."""
    header, numbers = {}, b""
    for name, p in named.items():
        data = p.detach().contiguous().numpy().astype("<f4").tobytes()
        header[name] = dict(dtype="F32", shape=list(p.shape), data_offsets=[len(numbers), len(numbers) + len(data)])
        numbers += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def optimizer_of(net, lr, momentum, weight_decay):
    """SGD as in rectify: biases and slopes do not decay."""
    import torch
    decay = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    groups = [dict(params=decay, weight_decay=weight_decay), dict(params=others, weight_decay=0)]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)


def torch_losses(net, x, labels, args):
    """A loss a step; changes the net."""
    import torch
    optimizer = optimizer_of(net, args.lr, args.momentum, args.weight_decay)
    losses = []
    for step in range(args.steps):
        batch = slice(step * args.batch, (step + 1) * args.batch)
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(net(x[batch]), labels[batch])
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    return losses


def rectify_losses(args, folder):
    """A loss a step, of the weights and the images that lie in the folder."""
    log = folder / "steps.jsonl"
    command = [args.rectify, "train", "--model", "cifar13", "--data", folder / "data", "--weights", folder / "init.safetensors",
               "--batch", args.batch, "--steps", args.steps, "--epochs", 2, "--lr", args.lr, "--momentum", args.momentum,
               "--weight-decay", args.weight_decay, "--schedule", "constant", "--shuffle", "false", "--flip", "false",
               "--crop", 0, "--threads", args.threads, "--out", folder / "run", "--step-log", log]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr.strip() or f"rectify ended with {done.returncode}")
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=pathlib.Path, required=True, metavar="PATH", help="a folder of CIFAR-10")
    p.add_argument("--steps", type=int, default=50, help="steps (default 50)")
    p.add_argument("--batch", type=int, default=64, help="images a step (default 64)")
    p.add_argument("--lr", type=float, default=0.0005, help="learning rate (default 0.0005)")
    p.add_argument("--momentum", type=float, default=0.9, help="momentum (default 0.9)")
    p.add_argument("--weight-decay", type=float, default=5e-4, help="weight decay (default 0.0005)")
    p.add_argument("--tolerance", type=float, default=1e-3, help="largest relative difference (default 0.001)")
    p.add_argument("--seed", type=int, default=1, help="of the weights and the choice of images (default 1)")
    p.add_argument("--threads", type=int, default=1, help="threads of either engine (default 1)")
    p.add_argument("--no-double", action="store_true", help="leave out PyTorch in float64")
    p.add_argument("--rectify", default=common.ROOT / "target/release/rectify", metavar="FILE", help="the rectify command")
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="a line of JSON for each step")
    args = p.parse_args()
    import copy
    import models
    import numpy
    import torch
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    all_records = records(args.data)
    count = args.steps * args.batch
    if len(all_records) < count:
        sys.exit(f"{args.data}: {len(all_records)} images, fewer than {args.steps} steps of {args.batch}")
    chosen = b"".join(read() for read in random.Random(args.seed).sample(all_records, count))
    array = numpy.frombuffer(chosen, numpy.uint8).reshape(count, RECORD)
    labels, pixels = torch.from_numpy(array[:, 0].astype(numpy.int64)), array[:, 1:].reshape(count, 3, 32, 32)
    x = torch.from_numpy(normalised(pixels, pixels))
    net = models.build("cifar13")
    condition(net)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # Any image for the test.
        save_data(chosen, chosen[:RECORD], folder / "data")
        save(tensors(net), folder / "init.safetensors")
        ours = rectify_losses(args, folder)
    double = None if args.no_double else torch_losses(copy.deepcopy(net).double(), x.double(), labels, args)
    theirs = torch_losses(net, x, labels, args)
    if len(ours) != args.steps:
        sys.exit(f"rectify has done {len(ours)} steps, not {args.steps}")
    off = lambda a, b: [abs(x - y) / abs(y) for x, y in zip(a, b)]
    differences = off(ours, theirs)
    print(f"torch {torch.__version__}, cifar13, batch {args.batch}, lr {args.lr}, momentum {args.momentum}, "
          f"weight decay {args.weight_decay}, {args.threads} threads")
    print(f"{'step':>4} {'torch':>12} {'rectify':>12} {'relative':>10}")
    for step in sorted({*range(0, args.steps, 5), args.steps - 1}):
        print(f"{step + 1:>4} {theirs[step]:>12.8f} {ours[step]:>12.8f} {differences[step]:>10.1e}")
    print(f"largest relative difference {max(differences):.1e}, allowed {args.tolerance:.0e}")
    if double:
        print(f"from float64: rectify {max(off(ours, double)):.1e}, torch {max(off(theirs, double)):.1e}")
    if args.json:
        lines = [dict(step=i + 1, torch=theirs[i], rectify=ours[i], **(dict(double=double[i]) if double else {}))
                 for i in range(args.steps)]
        args.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # NaN is not within it either.
    sys.exit(0 if all(d <= args.tolerance for d in differences) else 1)


if __name__ == "__main__":
    main()
