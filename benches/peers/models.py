"""The nets of src/model/builtin in PyTorch, with He's initialisation."""

import torch
from torch import nn

# Side of the image and number of outputs.
SIZES = {"cifar13": (32, 10), "cifar-small": (32, 10), "e14": (224, 1000), "a19": (224, 1000), "iresnet18": (112, 512)}


class Spp(nn.Module):
    """Adaptive max-pooling, flattened. ONNX has no such operator: where the bins are no windows at a stride, rows and
    then columns are cut out, which costs next to nothing beside the layer behind it."""

    def __init__(self, bins):
        super().__init__()
        self.bins = bins

    def forward(self, x):
        pool = cut if torch.compiler.is_exporting() else nn.functional.adaptive_max_pool2d
        return torch.cat([pool(x, b).flatten(1) for b in self.bins], 1)


def cut(x, b):
    """Adaptive max-pooling to b×b bins by windows and slices alone."""
    size = x.shape[2]
    ranges = [(i * size // b, -(-(i + 1) * size // b)) for i in range(b)]
    kernel, stride = ranges[0][1], ranges[-1][0] // max(1, b - 1)
    if ranges == [(i * stride, i * stride + kernel) for i in range(b)]:
        return nn.functional.max_pool2d(x, kernel, max(1, stride))
    rows = torch.cat([x[:, :, start:end].amax(2, keepdim=True) for start, end in ranges], 2)
    return torch.cat([rows[:, :, :, start:end].amax(3, keepdim=True) for start, end in ranges], 3)


class Block(nn.Module):
    """A block of IResNet."""

    def __init__(self, c, width, stride):
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(c), nn.Conv2d(c, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Identity()
        if stride > 1 or c != width:
            self.shortcut = nn.Sequential(nn.Conv2d(c, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        return self.branch(x) + self.shortcut(x)


class Named(nn.Module):
    """A sequence under a name: pnnx cannot write layers that are called 0, 1 and so on."""

    def __init__(self, layers):
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


def build(name):
    """A net in training mode."""
    layers = []

    def convs(c, width, count, kernel, padding, stride=1):
        for _ in range(count):
            layers.extend([nn.Conv2d(c, width, kernel, stride, padding), nn.PReLU(width)])
            c = width
        return c

    if name == "iresnet18":
        layers += [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)]
        c = 64
        for width in (64, 128, 256, 512):
            layers += [Block(c, width, 2), Block(width, width, 1)]
            c = width
        layers += [nn.BatchNorm2d(c), nn.Flatten(), nn.Linear(c * 7 * 7, 512), nn.BatchNorm1d(512)]
    elif name == "cifar13":
        c = 3
        for width, count in ((64, 3), (128, 4), (256, 4)):
            c = convs(c, width, count, 3, 1)
            layers.append(nn.MaxPool2d(2))
        layers += [nn.MaxPool2d(4), nn.Flatten(), nn.Linear(256, 256), nn.PReLU(256), nn.Linear(256, 10)]
    elif name == "cifar-small":
        c = 3
        for width, count in ((32, 1), (64, 2), (128, 2)):
            c = convs(c, width, count, 3, 1)
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(c * 4 * 4, 128), nn.PReLU(128), nn.Dropout(0.25), nn.Linear(128, 10)]
    elif name in ("e14", "a19"):
        if name == "e14":
            c = convs(3, 64, 1, 7, 3, 2)
            layers.append(nn.MaxPool2d(3))
            c = convs(c, 128, 4, 2, 0)
            layers.append(nn.MaxPool2d(2))
            c = convs(c, 256, 6, 2, 0)
            bins = (6, 3, 2, 1)
        else:
            c = convs(3, 96, 1, 7, 3, 2)
            for width in (256, 512, 512):
                layers.append(nn.MaxPool2d(2))
                c = convs(c, width, 5, 3, 1)
            bins = (7, 3, 2, 1)
        layers += [Spp(bins), nn.Linear(c * sum(b * b for b in bins), 4096), nn.PReLU(4096), nn.Dropout(0.5),
                   nn.Linear(4096, 4096), nn.PReLU(4096), nn.Dropout(0.5), nn.Linear(4096, 1000)]
    else:
        raise ValueError(f"no net {name!r}")
    made = Named(layers)
    for module in made.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            # Not zeros and ones, which an engine could leave out.
            for values, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.2, 0.2),
                                      (module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 1.5)):
                nn.init.uniform_(values, low, high)
    return made
