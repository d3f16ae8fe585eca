"""Models and synthetic data of realistic shape: a CIFAR ResNet, a small transformer, MLPs.

Initial weights depend on ``seed`` alone, and the global random state is left as it was. All models come
in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Transformer",
    "images",
    "mlp",
    "resnet20",
    "tiny_resnet",
    "tiny_transformer",
    "tokens",
    "transformer",
]


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """``build()`` in eval mode, its random initial weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def mlp(*widths: int, activation: type[nn.Module] = nn.Tanh, bias: bool = True, seed: int = 0) -> nn.Module:
    """Fully connected network through ``widths``, with the activation between its linear layers."""

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out, bias=bias), activation()]
        return nn.Sequential(*layers[:-1])

    return seeded(build, seed)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm and a shortcut without parameters (option A of He et al. 2016).

    Where the block narrows the image, the shortcut takes every second pixel; new channels are zeros.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.stride = 1 if channels_in == channels else 2
        self.new_channels = channels - channels_in
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        before = self.new_channels // 2
        shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before))
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + shortcut)


class ResNet(nn.Module):
    """He et al. 2016, §4.2: three stages of ``blocks`` residual blocks, 6·blocks + 2 weighted layers."""

    def __init__(self, blocks: int, width: int, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        channels = [width] * (blocks + 1) + [2 * width] * blocks + [4 * width] * blocks
        self.stages = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(channels)))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, h, w) to logits (n, classes)."""
        h: Tensor = self.stages(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.head(h.mean(dim=(2, 3)))
        return logits


def resnet20(seed: int = 0) -> nn.Module:
    """ResNet-20 for 3×32×32 images, 10 classes: 269 722 parameters."""
    return seeded(lambda: ResNet(blocks=3, width=16), seed)


def tiny_resnet(seed: int = 0) -> nn.Module:
    """The same with one block a stage and 4 channels, for tests on images of 8×8 and up."""
    return seeded(lambda: ResNet(blocks=1, width=4), seed)


class DecoderBlock(nn.Module):
    """Pre-LayerNorm block: causal self-attention, then a GELU network four times as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def attention(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return y

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return y


class Transformer(nn.Module):
    """Decoder-only language model with learned positions; ``tied`` shares the embedding with the head."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, heads: int, tied: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(DecoderBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, length) int64 to logits (n, length, vocabulary)."""
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(h)))
        return logits


def transformer(seed: int = 0, *, tied: bool = True) -> nn.Module:
    """One million parameters (1 032 576 tied): 5 layers of width 128, 256 tokens, sequences up to 64."""
    return seeded(lambda: Transformer(256, 64, 128, 5, 4, tied), seed)


def tiny_transformer(seed: int = 0, *, tied: bool = True) -> nn.Module:
    """The same with 2 layers of width 8, 12 tokens and sequences up to 6, for tests."""
    return seeded(lambda: Transformer(12, 6, 8, 2, 2, tied), seed)


def images(n: int, generator: torch.Generator, *, size: int = 32, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Noisy images of ``classes`` smooth patterns: x (n, 3, size, size) float32 and labels (n,) int64."""
    coarse = torch.randn(classes, 3, 4, 4, generator=generator)
    patterns = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    y = torch.randint(classes, (n,), generator=generator)
    return patterns[y] + 0.5 * torch.randn(n, 3, size, size, generator=generator), y


def tokens(
    n: int, length: int, generator: torch.Generator, *, vocabulary: int = 256
) -> tuple[Tensor, Tensor]:
    """Sequences of a Markov chain: x and the next tokens y, both (n, length) int64.

    Each token has four likely successors; one in ten follows none of them.
    """
    successors = torch.randint(vocabulary, (vocabulary, 4), generator=generator)
    sequence = [torch.randint(vocabulary, (n,), generator=generator)]
    for _ in range(length):
        likely = successors[sequence[-1], torch.randint(4, (n,), generator=generator)]
        other = torch.randint(vocabulary, (n,), generator=generator)
        surprise = torch.rand(n, generator=generator) < 0.1
        sequence.append(torch.where(surprise, other, likely))
    chain = torch.stack(sequence, dim=1)
    return chain[:, :-1].contiguous(), chain[:, 1:].contiguous()
