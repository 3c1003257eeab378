"""What the comparisons share: options, engines, turns, tables and charts.

Engines are imported where they are first needed, after `parse` has told OpenMP how many threads there are.
"""

import argparse
import copy
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Seconds between two engines' turns, in which the threads of the last one stop spinning.
PAUSE = 0.25
# An error relative to the largest output that no float32 computation has, and every 16-bit one.
LIMIT = 1e-3


# ---------------------------------------------------------------- arguments

def parser(description, engines, seconds):
    """The options that every comparison has."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=1, help="threads of every engine (default 1)")
    p.add_argument("--rounds", type=int, default=5, help="turns of every engine (default 5)")
    p.add_argument("--seconds", type=float, default=seconds, help=f"seconds of a turn (default {seconds})")
    p.add_argument("--only", default=",".join(engines), metavar="ENGINES", help=f"default {','.join(engines)}")
    p.add_argument("--rectify", default=ROOT / "target/release/rectify", metavar="FILE", help="the rectify command")
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="a line of JSON for each result")
    p.add_argument("--table", type=pathlib.Path, metavar="FILE", help="the table in Markdown, which is printed too")
    p.add_argument("--chart", type=pathlib.Path, metavar="FILE.svg", help="a bar chart")
    return p


def parse(p):
    """Parses, checks, and limits OpenMP before any engine is imported."""
    args = p.parse_args()
    args.known = p.get_default("only").split(",")
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(args.known):
        p.error(f"unknown engines {', '.join(sorted(unknown))}: expected some of {', '.join(args.known)}")
    if args.threads < 1 or args.rounds < 1 or args.seconds < 0:
        p.error("--threads and --rounds must be at least 1, --seconds at least 0")
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    return args


# ------------------------------------------------------------------- turns

def median_seconds(run, seconds):
    """Median seconds of a run, after one that warms caches up."""
    run()
    samples, begin = [], time.perf_counter()
    while len(samples) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def alternate(turns, rounds):
    """Every engine of `turns` (name: function that takes a turn and gives seconds) takes that many turns, each round in
    an order drawn anew, the same in every run; gives its seconds, turn by turn."""
    names, seconds, draw = list(turns), {name: [] for name in turns}, random.Random(0)
    for _ in range(rounds):
        draw.shuffle(names)
        for name in names:
            time.sleep(PAUSE)
            seconds[name].append(turns[name]())
    return seconds


def rectify(args, *options):
    """Runs a subcommand of rectify that writes one JSON record."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "out.json"
        command = [args.rectify, *options, "--threads", args.threads, "--json", path]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"rectify ended with {done.returncode}")
        return json.loads(path.read_text())


# ----------------------------------------------------------------- engines

def torch_engine(net, x, args, layout="NCHW", borders=False):
    """PyTorch computing in a layout. With borders, input and output of a run are NCHW."""
    import torch
    layout = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    net = copy.deepcopy(net).to(memory_format=layout)
    x = x if borders else x.to(memory_format=layout)

    def run():
        with torch.inference_mode():
            return net(x.contiguous(memory_format=layout)).contiguous() if borders else net(x)
    return run, lambda: run().contiguous().numpy()


def onnx_file(net, x, folder):
    """The net for ONNX Runtime and OpenVINO, written once."""
    import torch
    path = folder / "net.onnx"
    if not path.exists():
        with quiet():
            torch.onnx.export(net, (x,), str(path), input_names=["x"], output_names=["y"], dynamo=True, verbose=False)
    return str(path)


def onnxruntime_engine(net, x, args, folder):
    import numpy
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = ort.InferenceSession(onnx_file(net, x, folder), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x.numpy()))
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_shape_and_type(list(net(x).shape), numpy.float32))
    return lambda: session.run_with_iobinding(binding), lambda: session.run(None, {"x": x.numpy()})[0]


def openvino_engine(net, x, args, folder):
    import openvino
    options = {"INFERENCE_NUM_THREADS": args.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
               "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(onnx_file(net, x, folder), "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x.numpy()))

    def run():
        # Without being told to share it, Python gets a copy of the output, which the others do not make.
        return request.infer(share_outputs=True)
    return run, lambda: (run(), request.get_output_tensor().data.copy())[1]


def ncnn_engine(net, x, args, folder):
    import ncnn
    import numpy
    import pnnx
    if len(x) != 1:
        return None
    with quiet():
        pnnx.export(net, str(folder / "net.pt"), (x,), fp16=False)
    loaded = ncnn.Net()
    options = loaded.opt
    options.num_threads = args.threads
    for flag in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        setattr(options, f"use_{flag}", False)
    loaded.load_param(str(folder / "net.ncnn.param"))
    loaded.load_model(str(folder / "net.ncnn.bin"))
    image = ncnn.Mat(x[0].numpy()).clone()
    shape = (1, *net(x).shape[1:])

    def run():
        extractor = loaded.create_extractor()
        extractor.input("in0", image)
        code, y = extractor.extract("out0")
        if code != 0:
            raise RuntimeError(f"ncnn ended with {code}")
        return y
    return run, lambda: numpy.array(run()).reshape(shape)


# Not given what the others are given, so shown but not counted as a peer.
ASIDE = {"torch-nhwc"}

ENGINES = {
    "torch": lambda net, x, args, folder: torch_engine(net, x, args),
    "torch-cl": lambda net, x, args, folder: torch_engine(net, x, args, "NHWC", borders=True),
    "torch-nhwc": lambda net, x, args, folder: torch_engine(net, x, args, "NHWC"),
    "onnxruntime": onnxruntime_engine,
    "openvino": openvino_engine,
    "ncnn": ncnn_engine,
}


class quiet:
    """Sends what converters print, from C++ too, to nowhere."""

    def __enter__(self):
        sys.stdout.flush(), sys.stderr.flush()
        self.saved, null = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2), os.close(null)

    def __exit__(self, *_):
        sys.stdout.flush(), sys.stderr.flush()
        for to, saved in enumerate(self.saved, 1):
            os.dup2(saved, to), os.close(saved)


def compare(name, net, x, args, ours):
    """Times a PyTorch module (in eval mode) on `x` in every engine, and rectify by `ours`, which takes seconds and
    whether to check, and gives seconds a run and the error. Gives the results and what failed."""
    import numpy
    import torch
    torch.set_num_threads(args.threads)
    engines, errors, failures = {}, {}, []
    with torch.inference_mode():
        want = copy.deepcopy(net).double()(x.double()).numpy()
    with tempfile.TemporaryDirectory() as folder:
        for engine in args.only:
            try:
                if engine == "rectify":
                    errors[engine] = ours(0, True)[1]
                    engines[engine] = lambda: ours(args.seconds, False)[0]
                else:
                    with torch.no_grad():
                        built = ENGINES[engine](net, x, args, pathlib.Path(folder))
                    if built is None:
                        continue
                    run, output = built
                    errors[engine] = float(numpy.abs(output() - want).max() / numpy.abs(want).max())
                    engines[engine] = lambda run=run: median_seconds(run, args.seconds)
                if not errors[engine] < LIMIT:
                    del engines[engine]
                    raise RuntimeError(f"error {errors[engine]:.0e}: that is no float32 computation of the same")
            except Exception as e:
                failures.append(f"{name}, {engine}: {' '.join(str(e).split())[:300]}")

        def take(engine):
            try:
                return engines[engine]()
            except Exception as e:
                failures.append(f"{name}, {engine}: {' '.join(str(e).split())[:300]}")
                return math.nan
        seconds = alternate({engine: lambda engine=engine: take(engine) for engine in engines}, args.rounds)
    results = [dict(name=name, engine=engine, threads=args.threads, median_s=statistics.median(s), rounds_s=s,
                    max_rel_err=errors[engine]) for engine, s in seconds.items() if not any(map(math.isnan, s))]
    return results, failures


# ------------------------------------------------------------------ output

def versions(args):
    """What a result depends on beside the machine's load: a line of JSON."""
    from importlib import metadata

    def version(package):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None
    packages = ["onnxruntime", "openvino", "ncnn"]
    found = {p: version(p) for p in ["torch", *(p for p in packages if p in args.only)]}
    ours = subprocess.run([str(args.rectify), "--version"], capture_output=True, text=True).stdout.split()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return dict(processor=names[0] if names else "unknown", threads=args.threads, rounds=args.rounds,
                seconds=args.seconds, rectify=ours[-1] if ours else "unknown", **found)


class Report:
    """Results as they come: JSON lines at once, table and chart at the end. `speed` of a result: larger is better."""

    def __init__(self, args, unit, digits=1):
        self.args, self.unit, self.digits, self.rows, self.failures = args, unit, digits, {}, []
        self.json = open(args.json, "w") if args.json else None
        self.line(versions(args))

    def line(self, record):
        if self.json:
            print(json.dumps(record), file=self.json, flush=True)

    def add(self, results, failures=()):
        """Results of one problem, each with `speed`; prints them."""
        for r in results:
            self.line(r)
            self.rows.setdefault(r["name"], {})[r["engine"]] = r["speed"]
        error = lambda r: f" ({r['max_rel_err']:.0e})" if r.get("max_rel_err") is not None else ""
        cells = [f"{r['engine']} {r['speed']:.{self.digits}f}{error(r)}" for r in results]
        print(f"{results[0]['name'] if results else '-'}: {', '.join(cells)}", flush=True)
        for failure in failures:
            print(f"FAILED {failure}", file=sys.stderr, flush=True)
        self.failures += failures

    @staticmethod
    def ratio(row):
        """Our speed over the best peer's; None if one of them is missing."""
        peers = [speed for engine, speed in row.items() if engine != "rectify" and engine not in ASIDE]
        return row["rectify"] / max(peers) if peers and "rectify" in row else None

    def table(self):
        """Markdown: speeds, the best peer in bold, the ratio, its geometric mean."""
        engines = [e for e in self.args.known if any(e in row for row in self.rows.values())]
        lines = [f"| {self.unit} | {' | '.join(engines)} | rectify / best peer |", "|---" * (len(engines) + 2) + "|"]
        ratios = []
        for name, row in self.rows.items():
            best = max((s for e, s in row.items() if e != "rectify" and e not in ASIDE), default=None)
            ratio, cells = self.ratio(row), []
            for e in engines:
                text = f"{row[e]:.{self.digits}f}" if e in row else "–"
                cells.append(f"**{text}**" if e != "rectify" and row.get(e) == best is not None else text)
            ratios += [ratio] if ratio else []
            lines.append(f"| {name} | {' | '.join(cells)} | {f'{ratio:.2f}' if ratio else '–'} |")
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            lines.append(f"| geometric mean |{' |' * len(engines)} {mean:.2f} |")
        return "\n".join(lines) + "\n"

    def chart(self, path):
        """Bars of every engine's speed relative to the best peer's. The same numbers give the same bytes."""
        import matplotlib
        matplotlib.use("svg")
        matplotlib.rcParams["svg.hashsalt"] = "rectify"
        import matplotlib.pyplot as plt
        engines = [e for e in self.args.known if any(e in row for row in self.rows.values())]
        names = [n for n, row in self.rows.items() if self.ratio(row)]
        if not names:
            return
        figure, axes = plt.subplots(figsize=(9, 1 + 0.5 * len(names)), layout="constrained")
        height = 0.8 / len(engines)
        for i, engine in enumerate(engines):
            best = [max(s for e, s in self.rows[n].items() if e != "rectify" and e not in ASIDE) for n in names]
            speeds = [self.rows[n].get(engine, 0) / b for n, b in zip(names, best)]
            at = [k - 0.4 + (i + 0.5) * height for k in range(len(names))]
            axes.barh(at, speeds, height, label=engine, color=f"C{i}")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(f"speed relative to the best peer, {self.args.threads} thread(s)")
        figure.legend(loc="outside upper center", ncols=len(engines))
        figure.savefig(path, format="svg", metadata={"Date": None})

    def finish(self):
        """Prints and writes; exit code 1 if something failed."""
        table = self.table()
        print(f"\n{table}", end="")
        if self.args.table:
            self.args.table.write_text(table)
        if self.args.chart:
            self.chart(self.args.chart)
        sys.exit(1 if self.failures else 0)
