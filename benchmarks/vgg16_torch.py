"""The torch side of ``vgg16_vs_keras``: frozen VGG16, bf16, channels last, images/s as JSON."""

from __future__ import annotations

import json
import time

import timm
import torch


def main() -> None:
    network = timm.create_model("vgg16", pretrained=False, num_classes=0).features.eval()
    network = network.to(memory_format=torch.channels_last)
    best = {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for batch_size in (4, 16, 32):
            images = torch.rand(batch_size, 3, 224, 224).to(memory_format=torch.channels_last)
            network(images)
            begun, seen = time.perf_counter(), 0
            while time.perf_counter() - begun < 8:
                network(images)
                seen += batch_size
            best[batch_size] = seen / (time.perf_counter() - begun)
    print(json.dumps({"images_per_s": max(best.values()), "by_batch_size": best}))


main()
