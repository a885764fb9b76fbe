"""Mutate every file of a model folder at random and open it: each mutation is refused in one sentence.

    python benchmarks/faults/models.py

Bytes are flipped, cut, repeated, inserted and exchanged, 400 times for each file. A mutation of
``manifest.json`` that changes no value (a space, a sign written in another way) may be accepted; what is then
read must equal the original. Each refusal must be a ModelError of one line that names the folder. The same
mutations, and for manifest and graph also other values of their fields, are then planted with correct hashes and a
correct checksum, as somebody would who knows the format: the folder is refused in one line, or opens and predicts,
or says in one line why it cannot, within a minute and 2 GiB of memory beyond what the process has.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import resource
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from campaign import Outcome, digits_folder, headstart, keep
from onnx import numpy_helper

from headstart.data.readers.load import from_arrays, load
from headstart.errors import HeadstartError, ModelError
from headstart.models.manifest import checksum, read_manifest
from headstart.models.model import open_model
from headstart.models.operators import OPERATORS

_LIMIT_S, _LIMIT_BYTES = 60, 2 * 2**30


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One change of one kind."""
    made, kind = bytearray(data), rng.randrange(6)
    at, length = rng.randrange(len(data)), rng.randrange(1, 40)
    if kind <= 1:
        made[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del made[at : at + length]
    elif kind == 3:
        made[at:at] = made[at : at + length]
    elif kind == 4:
        made[at : at + length] = rng.randbytes(length)
    else:
        other = rng.randrange(len(data))
        made[at : at + length], made[other : other + length] = (
            made[other : other + length],
            made[at : at + length],
        )
    return bytes(made)


def plainly(outcome: Outcome, folder: Path, name: str, n: int, rng: random.Random) -> None:
    """Mutations as a disk or a transfer makes them."""
    file, counts = folder / name, Counter[str]()
    data = file.read_bytes()
    wanted = read_manifest((folder / "manifest.json").read_text(), "x")
    for number in range(n):
        changed = mutated(data, rng)
        while changed == data:
            changed = mutated(data, rng)
        file.write_bytes(changed)
        try:
            found = open_model(folder)
        except ModelError as error:
            counts["refused"] += 1
            if "\n" in str(error) or str(folder) not in str(error):
                outcome.fault(f"{name}, mutation {number}: {error}")
            continue
        except Exception as error:
            outcome.fault(f"{name}, mutation {number}: {type(error).__name__}: {error}")
            continue
        same = name == "manifest.json" and found.manifest == wanted
        counts["the same values"] += same
        if not same:
            outcome.fault(f"{name}, mutation {number} was opened")
    file.write_bytes(data)
    outcome.say(
        f"{name:22} {n} mutations: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    )


_STRANGE = (
    None,
    True,
    -1,
    0,
    7,
    2**31,
    10**400,
    1e308,
    float("nan"),
    "",
    "x" * 9_999,
    "\x1b[2J",
    [],
    {},
    [[[]]],
    ["a"] * 50,
)
"""Values that a field of a manifest may be given."""


def altered(name: str, data: bytes, rng: random.Random) -> bytes:
    """A change that knows the format: another value in the manifest, another field of the graph's operations."""
    return altered_manifest(data, rng) if name == "manifest.json" else altered_graph(data, rng)


def altered_manifest(data: bytes, rng: random.Random) -> bytes:
    """Another value, or none, in one place."""
    document = json.loads(data)
    place: Any = document
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.2:
            break
        place = place[key]
    if rng.random() < 0.2:
        del place[key]
    else:
        place[key] = rng.choice(_STRANGE)
    return json.dumps(document).encode()


def altered_graph(data: bytes, rng: random.Random) -> bytes:
    """One operation or constant changed."""
    model = onnx.ModelProto.FromString(data)
    node, tensor = rng.choice(model.graph.node), rng.choice(model.graph.initializer)
    kind = rng.randrange(7)
    if kind == 0:
        node.op_type = rng.choice(sorted(OPERATORS))
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(model.graph.node).output[0]
    elif kind == 2:
        model.graph.node.remove(node)
    elif kind == 3 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice([0, 1, 2, 2**20, 2**40, -1])
    elif kind == 4:
        for one in node.attribute:
            one.i = rng.choice([-(2**31), -1, 0, 1, 2, 2**20, 2**40, one.i])
            one.ints[:] = [rng.choice([-1, 0, 1, 2, 3, 2**20, 2**40, each]) for each in one.ints]
    elif kind == 5:
        values = numpy_helper.to_array(tensor)
        strange = rng.choice([0, -1, 1, 2**15, 2**31 - 1, 2**40 if values.dtype == np.int64 else 1e38])
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, strange), tensor.name))
    else:
        node.output[0] = rng.choice(model.graph.node).output[0]
    return model.SerializeToString()


def planted(outcome: Outcome, folder: Path, name: str, n: int, rng: random.Random) -> None:
    """Mutations with correct hashes, each opened and used in a process that may die alone."""
    file, manifest = folder / name, folder / "manifest.json"
    data, text, counts = file.read_bytes(), manifest.read_text(), Counter[str]()
    knows = name in ("manifest.json", "model.onnx")
    for number in range(n):
        changed = (altered(name, data, rng) if knows and number % 2 else None) or mutated(data, rng)
        file.write_bytes(changed)
        if name != "manifest.json":
            document = json.loads(text)
            note = {"size_bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
            document["files" if name in document["files"] else "report"] = (
                {**document["files"], name: note} if name in document["files"] else note
            )
            manifest.write_text(json.dumps({**document, "checksum": checksum(document)}))
        else:
            try:
                document = json.loads(changed)
                manifest.write_text(json.dumps({**document, "checksum": checksum(document)}))
            except (ValueError, TypeError, AttributeError):
                pass
        said = in_a_process(folder)
        counts[said.partition(":")[0]] += 1
        if said.startswith(("died", "raised", "hung")):
            outcome.fault(f"{name}, planted mutation {number}: {said}")
            shutil.copy(file, Path(tempfile.gettempdir()) / f"fault-{name}-{number}")
    file.write_bytes(data)
    manifest.write_text(text)
    outcome.say(
        f"{name:22} {n} planted:   " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    )


def in_a_process(folder: Path) -> str:
    """What opening and predicting comes to; a fork, because a new interpreter takes a second."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=use, args=(folder, theirs))
    process.start()
    theirs.close()
    said = "hung"
    if ours.poll(_LIMIT_S):
        try:
            said = ours.recv()
        except EOFError:
            said = "died"
    else:
        process.kill()
    process.join()
    return f"died: status {process.exitcode}" if said == "died" else said


def use(folder: Path, pipe: multiprocessing.connection.Connection) -> None:
    """Open, predict with the reference runtime, and describe."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _LIMIT_BYTES, resource.RLIM_INFINITY))
    try:
        model = open_model(folder)
        shape = (2, *model.manifest.input.shape)
        images = from_arrays(np.zeros(shape, np.uint8), [model.classes[0]] * 2)
        model.predict(images, runtime_name="onnxruntime")
        pipe.send("opened and predicted")
    except HeadstartError as error:
        pipe.send("raised: two lines" if "\n" in str(error) else "refused")
    except BaseException as error:
        pipe.send(f"raised: {type(error).__name__}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=400, help="mutations of each file")
    parser.add_argument(
        "--planted-only", action="store_true", help="leave out mutations without correct hashes"
    )
    parser.add_argument("--files", nargs="*", help="names of files; default: all")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    outcome, rng = Outcome("models"), random.Random(words.seed)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        data = digits_folder(home / "digits", 20)
        process = headstart(["transfer", "drawings", data, "-o", "model"], home)
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert len(load(str(data))) == 60
        folder = home / "model"
        names = words.files or sorted(one.name for one in folder.iterdir())
        for name in names if not words.planted_only else ():
            plainly(outcome, folder, name, words.n, rng)
        for name in names:
            planted(outcome, folder, name, words.n, rng)
    keep(outcome)


if __name__ == "__main__":
    main()
