"""The straightforward peer of `headstart serve`: FastAPI, Pillow, torchvision and a network in eager PyTorch.

In: a model of ours (for digits, whose weights it takes) or nothing (for photos: timm's MobileNetV1, fresh
weights, the same arithmetic). Written as tutorials do it, to be compared with; started by serve_load.

python benchmarks/torch_server.py digits --model runs/digits --port 8001
python benchmarks/torch_server.py photos --port 8001
"""

from __future__ import annotations

import argparse
import os
from typing import Annotated

import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from torch import nn
from torchvision import transforms


class Digits(nn.Module):
    """The network `cnn`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 3)
        self.dense1, self.dense2 = nn.Linear(576, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (n, 1, 28, 28)."""
        x = torch.relu(torch.max_pool2d(self.conv1(x), 2))
        x = torch.relu(torch.max_pool2d(self.conv2(x), 2))
        x = torch.relu(self.conv3(x)).permute(0, 2, 3, 1).flatten(1)  # ours flattens rows, columns, channels
        return self.dense2(torch.relu(self.dense1(x)))


def digits(model: str) -> tuple[nn.Module, transforms.Compose, str, list[str]]:
    from safetensors.torch import load_file

    weights = list(load_file(os.path.join(model, "weights.safetensors")).items())
    net = Digits()
    named = dict(weights)
    names = sorted({key.rpartition(".")[0] for key in named})
    convs = [name for name in names if named[f"{name}.weight"].ndim == 4]
    others = [name for name in names if named[f"{name}.weight"].ndim == 2]
    others.sort(key=lambda name: -named[f"{name}.weight"].shape[1])
    for ours, layer in zip(
        [*convs, *others], (net.conv1, net.conv2, net.conv3, net.dense1, net.dense2), strict=True
    ):
        layer.load_state_dict({"weight": named[f"{ours}.weight"], "bias": named[f"{ours}.bias"]})
    fitted = transforms.Compose([transforms.Resize((28, 28)), transforms.ToTensor()])
    return net, fitted, "L", [str(number) for number in range(10)]


def photos() -> tuple[nn.Module, transforms.Compose, str, list[str]]:
    import timm

    fitted = transforms.Compose(
        [
            transforms.Resize(224),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    return timm.create_model("mobilenetv1_100", num_classes=2), fitted, "RGB", ["ants", "bees"]


def make_app(kind: str, model: str, style: str) -> FastAPI:
    net, fitted, mode, classes = digits(model) if kind == "digits" else photos()
    net.eval()
    app = FastAPI()

    def answer(file: UploadFile) -> dict[str, object]:
        images = fitted(Image.open(file.file).convert(mode)).unsqueeze(0)
        with torch.inference_mode():
            probabilities = net(images).softmax(dim=1)[0]
        best = int(probabilities.argmax())
        return {
            "class": classes[best],
            "probability": float(probabilities[best]),
            "probabilities": dict(zip(classes, probabilities.tolist(), strict=True)),
        }

    if style == "def":

        @app.post("/predict")
        def in_threads(files: Annotated[UploadFile, File()]) -> dict[str, object]:
            return answer(files)

    else:

        @app.post("/predict")
        async def in_the_loop(files: Annotated[UploadFile, File()]) -> dict[str, object]:
            return answer(files)

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("digits", "photos"))
    parser.add_argument("--model", default="")
    parser.add_argument("--style", choices=("def", "async"), default="def")
    parser.add_argument("--threads", type=int, default=0, help="torch's, 0 for its own choice")
    parser.add_argument("--port", type=int, default=8001)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    uvicorn.run(make_app(asked.kind, asked.model, asked.style), port=asked.port, log_level="warning")


if __name__ == "__main__":
    main()
