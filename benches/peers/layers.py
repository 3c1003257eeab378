#!/usr/bin/env python3
"""Single layers: convolution + bias + PReLU in float32, NCHW in and out, in PyTorch (both memory formats), ONNX Runtime,
OpenVINO, ncnn (one image only) and rectify, by turns. torch-nhwc has NHWC in and out, so it is shown but not counted.

    python3 benches/peers/layers.py --threads 1 --json layers.jsonl --table layers.md --chart layers.svg

Speeds are effective GFLOP/s: 2·N·OC·OH·OW·IC/G·KH·KW a run, whatever the algorithm does.
"""

import pathlib
import re

import common

KEYS = "mb|ic|ih|iw|oc|oh|ow|kh|kw|sh|sw|ph|pw|dh|dw|g"


def problem(line):
    """A problem in benchdnn's notation; what is left out follows from the rest. Padding must be the same on all sides,
    or less below and on the right, where the kernel does not reach."""
    text, _, name = line.partition('n"')
    if re.sub(rf"({KEYS})\d+|_", "", text):
        raise ValueError(f"{line}: cannot be read")
    given = {key: int(value) for key, value in re.findall(rf"({KEYS})(\d+)", text)}
    p = dict(g=given.get("g", 1), mb=given.get("mb", 2), ic=given["ic"], oc=given["oc"])
    tall = any(key in given for key in ("ih", "oh", "kh"))
    for axis, other in (("h", "w"), ("w", "h")):
        for key, default in (("i", 1), ("k", 1), ("s", 1), ("p", 0), ("d", 0)):
            fallback = given.get(key + other, default) if tall else default
            p[key + axis] = given.get(key + axis, fallback)
        reach = p["i" + axis] + 2 * p["p" + axis] - (p["d" + axis] + 1) * (p["k" + axis] - 1) - 1
        p["o" + axis] = reach // p["s" + axis] + 1
        if given.get("o" + axis, p["o" + axis]) != p["o" + axis]:
            raise ValueError(f"{line}: o{axis} does not follow from padding that is the same on all sides")
    p["name"] = name.rstrip('"') or text
    p["flop"] = 2 * p["mb"] * p["oc"] * p["oh"] * p["ow"] * (p["ic"] // p["g"]) * p["kh"] * p["kw"]
    return p


def layer(p):
    """The layer in PyTorch, with random weights, and its input."""
    import torch
    from torch import nn
    torch.manual_seed(0)
    conv = nn.Conv2d(p["ic"], p["oc"], (p["kh"], p["kw"]), (p["sh"], p["sw"]), (p["ph"], p["pw"]),
                     (p["dh"] + 1, p["dw"] + 1), p["g"])
    prelu = nn.PReLU(p["oc"])
    nn.init.kaiming_normal_(conv.weight)
    nn.init.normal_(conv.bias)
    nn.init.uniform_(prelu.weight, 0.0, 0.5)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.prelu = conv, prelu

        def forward(self, x):
            return self.prelu(self.conv(x))
    return Layer().eval(), torch.randn(p["mb"], p["ic"], p["ih"], p["iw"])


def main():
    engines = ["torch", "torch-cl", "torch-nhwc", "onnxruntime", "openvino", "ncnn", "rectify"]
    options = common.parser(__doc__, engines, 0.2)
    options.add_argument("problems", nargs="?", type=pathlib.Path,
                         default=common.ROOT / "benches/problems/layers.txt", help="default benches/problems/layers.txt")
    args = common.parse(options)
    lines = (line.partition("#")[0].strip() for line in args.problems.read_text().splitlines())
    lines = [line for line in lines if line]
    report = common.Report(args, "GFLOP/s")
    for line in lines:
        p = problem(line)

        def ours(seconds, check):
            r = common.rectify(args, "bench", "--problem", line, "--layout", "nchw", "--seconds", seconds,
                               *["--check"] * check)
            return r["median_s"], r["max_rel_err"]
        results, failures = common.compare(p["name"], *layer(p), args, ours)
        for r in results:
            r.update(problem=line, speed=p["flop"] / r["median_s"] / 1e9)
        report.add(results, failures)
    report.finish()


if __name__ == "__main__":
    main()
