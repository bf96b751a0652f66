"""PyTorch's side of the tests: LeNet-5, VGG-A with batch norm and ResNet-18, written down as anyone would.

    python tests/record_torch.py        writes tests/torch_outputs.safetensors (needs PyTorch)

The file holds what the tests without PyTorch compare with: the weights of narrow networks (float32), a batch of two
images (N, C, H, W), and the logits that PyTorch computes from them in float64, in inference mode.
"""

from pathlib import Path

import torch
from torch import nn

FILE = Path(__file__).with_name("torch_outputs.safetensors")
VGG_A = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


class LeNet(nn.Module):
    def __init__(self, filters=(6, 16), hidden=(120, 84)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, filters[0], 5)
        self.conv2 = nn.Conv2d(filters[0], filters[1], 5)
        self.fc1 = nn.Linear(25 * filters[1], hidden[0])
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.conv1(x).relu(), 2)
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc3(self.fc2(self.fc1(x.flatten(1)).relu()).relu())


class VGG(nn.Module):
    def __init__(self, filter_multiplier=1.0, hidden=(512, 512)):
        super().__init__()
        features, channels = [], 3
        for entry in VGG_A:
            if entry == "M":
                features.append(nn.MaxPool2d(2))
                continue
            width = round(entry * filter_multiplier)
            features += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Linear(channels, hidden[0]), nn.ReLU(), nn.Linear(*hidden), nn.ReLU(),
                                        nn.Linear(hidden[1], 10))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class BasicBlock(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if (stride, channels) != (1, width):
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    def __init__(self, filter_multiplier=1.0):
        super().__init__()
        channels = round(64 * filter_multiplier)
        self.conv1 = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for stage, filters in enumerate((64, 128, 256, 512), start=1):
            width = round(filters * filter_multiplier)
            first = BasicBlock(channels, width, 1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, BasicBlock(width, width, 1)))
            channels = width
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def scatter(net):
    """Give normalisation layers the weights and statistics of a trained network: none is 0 or 1, none like another."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
            nn.init.normal_(layer.running_mean, 0, 0.5)
            nn.init.uniform_(layer.running_var, 0.3, 2)
    return net


def main():
    from safetensors.torch import save_file

    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    narrow = {"lenet5": LeNet((3, 8), (24, 16)), "vgg-a-bn": VGG(1 / 32, (16, 12)), "resnet18": ResNet(1 / 32)}
    arrays = {"x": x}
    for name, net in narrow.items():
        arrays |= {f"{name}/{key}": value.clone() for key, value in scatter(net).state_dict().items()}
        with torch.no_grad():
            arrays[f"{name}/logits"] = net.double().eval()(x.double())
    save_file(arrays, FILE)
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
