"""Writes values.safetensors: what PyTorch computes, in float64, from float32 inputs.

    python3 tests/golden/generate.py        # needs torch alone; run from anywhere

The tests in tests/golden.rs compare the kernels with it, within the error that float32 allows.
"""

import json
import pathlib
import struct
import torch
import torch.nn.functional as F

FORMATS = {torch.float32: ("F32", "f"), torch.float64: ("F64", "d"), torch.int64: ("I64", "q")}

torch.manual_seed(20150206)
values = {}


def draw(*shape):
    """float32 numbers, held as float64 so that PyTorch computes in float64."""
    return torch.randn(*shape, dtype=torch.float32).double().requires_grad_()


def put(case, inputs, results, **numbers):
    """Inputs as float32 (exactly what they are), results as float64, sizes as int64."""
    for name, tensor in inputs.items():
        values[f"{case}.{name}"] = tensor.detach().float().contiguous()
    for name, tensor in results.items():
        values[f"{case}.{name}"] = tensor.detach().contiguous()
    for name, number in numbers.items():
        values[f"{case}.{name}"] = torch.tensor(number)


def conv(name, n, groups, ic, ih, iw, oc, kh, kw, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1)):
    """`pad`: top, bottom, left, right."""
    x, w, bias = draw(n, ic, ih, iw), draw(oc, ic // groups, kh, kw), draw(oc)
    top, bottom, left, right = pad
    y = F.conv2d(F.pad(x, (left, right, top, bottom)), w, bias, stride, 0, dilation, groups)
    dy = draw(*y.shape)
    dx, dw, dbias = torch.autograd.grad(y, (x, w, bias), dy)
    shape = [n, groups, ic, ih, iw, oc, kh, kw, *stride, *pad, *dilation]
    put(f"conv.{name}", dict(x=x, w=w, bias=bias, dy=dy), dict(y=y, dx=dx, dw=dw, dbias=dbias), shape=shape)


conv("plain", 2, 1, 3, 6, 7, 5, 3, 3)
conv("same", 1, 1, 18, 5, 6, 20, 3, 3, pad=(1, 1, 1, 1))
conv("strided", 2, 1, 4, 9, 8, 6, 3, 2, stride=(2, 3), pad=(1, 0, 1, 1))
conv("uneven", 1, 1, 3, 4, 5, 4, 2, 2, pad=(0, 1, 2, 0))
conv("dilated", 1, 1, 5, 9, 9, 3, 3, 3, pad=(2, 2, 2, 2), dilation=(2, 3))
conv("grouped", 2, 3, 6, 5, 5, 9, 3, 3, pad=(1, 1, 1, 1))
conv("depthwise", 1, 17, 17, 6, 5, 17, 3, 3, stride=(2, 1), pad=(1, 1, 1, 1))
conv("pointwise", 9, 1, 19, 2, 3, 17, 1, 1)

for name, count in (("channelwise", 5), ("shared", 1)):
    x, slopes = draw(3, 5, 4, 3), draw(count)
    y = F.prelu(x, slopes)
    dy = draw(*y.shape)
    dx, dslopes = torch.autograd.grad(y, (x, slopes), dy)
    put(f"prelu.{name}", dict(x=x, slopes=slopes, dy=dy), dict(y=y, dx=dx, dslopes=dslopes), shape=[3, 5, 4, 3])

for name, kernel, stride, pad in (("even", (2, 2), (2, 2), (0, 0)), ("overlapping", (3, 2), (2, 1), (1, 1))):
    for kind in ("max", "average"):
        x = draw(2, 3, 7, 6)
        if kind == "max":
            y = F.max_pool2d(x, kernel, stride, pad)
        else:
            y = F.avg_pool2d(x, kernel, stride, pad, count_include_pad=False)
        dy = draw(*y.shape)
        (dx,) = torch.autograd.grad(y, x, dy)
        shape = [2, 3, 7, 6, *kernel, *stride, pad[0], pad[0], pad[1], pad[1]]
        put(f"pool.{kind}.{name}", dict(x=x, dy=dy), dict(y=y, dx=dx), shape=shape)

x, w, bias = draw(3, 4, 3, 2), draw(7, 24), draw(7)
y = F.linear(x.flatten(1), w, bias)
dy = draw(*y.shape)
dx, dw, dbias = torch.autograd.grad(y, (x, w, bias), dy)
put("linear", dict(x=x, w=w, bias=bias, dy=dy), dict(y=y, dx=dx, dw=dw, dbias=dbias), shape=[3, 4, 3, 2, 7])

logits, labels = (4 * draw(6, 10)).float().double().detach().requires_grad_(), [0, 9, 3, 3, 7, 1]
loss = F.cross_entropy(logits, torch.tensor(labels), reduction="sum")
(dlogits,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor(labels)), logits)
correct = int((logits.argmax(1) == torch.tensor(labels)).sum())
put("loss", dict(logits=logits), dict(loss=loss.reshape(1), dlogits=dlogits), labels=labels, correct=[correct])

w, velocity = draw(37).detach(), draw(37).detach()
put("sgd", dict(w=w, velocity=velocity), {})
w.grad = draw(37).detach()
put("sgd", dict(grad=w.grad), {})
# The options as float32, which is what the kernels are given.
lr, momentum, weight_decay = (float(torch.tensor(v, dtype=torch.float32)) for v in (0.1, 0.9, 0.0005))
optimizer = torch.optim.SGD([w], lr=lr, momentum=momentum, weight_decay=weight_decay)
optimizer.state[w]["momentum_buffer"] = velocity
optimizer.step()
put("sgd", {}, dict(w_after=w, velocity_after=optimizer.state[w]["momentum_buffer"]))

header = {"__metadata__": {"torch": torch.__version__.split("+")[0]}}
data = b""
# The widest numbers first, so that each is aligned.
for name, tensor in sorted(values.items(), key=lambda item: (-item[1].element_size(), item[0])):
    dtype, letter = FORMATS[tensor.dtype]
    packed = struct.pack(f"<{tensor.numel()}{letter}", *tensor.flatten().tolist())
    header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(packed)]}
    data += packed
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
pathlib.Path(__file__).with_name("values.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
