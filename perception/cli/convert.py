"""``perception convert IN OUT``: a point cloud in another file format, a model in half the bytes."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.io import SUFFIXES, FormatError, read, write


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="perception convert",
        description="Write a point cloud in another file format; formats are named by suffix: "
        + ", ".join(SUFFIXES)
        + ". A .safetensors model is written with its weights in float16.",
    )
    result.add_argument("input", type=Path, metavar="IN", help="a point-cloud or model file")
    result.add_argument("output", type=Path, metavar="OUT", help="the file to write")
    result.add_argument("--layout", help="what a headerless .bin IN holds: kitti, nuscenes, ...")
    result.add_argument("--output-layout", help="what a headerless .bin OUT shall hold")
    result.add_argument(
        "--local",
        action="store_true",
        help="write coordinates relative to the cloud's own origin (for .bin, whose float32 "
        "cannot hold geo-referenced ones)",
    )
    return result


def run(argv: list[str]) -> int:
    """Convert one file."""
    options = parser().parse_args(argv)
    if options.input.suffix == ".safetensors":
        return shrink(options.input, options.output)
    cloud = read(options.input, layout=options.layout)
    if options.output.exists() and options.output.samefile(options.input):
        raise FormatError(options.output, "is the input itself", "name another output")
    if cloud.origin.any() and options.local:
        print("left out the origin " + " ".join(f"{value:.10g}" for value in cloud.origin))
        cloud = cloud.replace(origin=(0.0, 0.0, 0.0))
    elif cloud.origin.any() and options.output.suffix.lower() == ".bin":
        raise FormatError(
            options.output,
            "cannot hold geo-referenced coordinates (float32 records)",
            "add --local, or write .ply, .pcd, .las or .npz",
        )
    write(options.output, cloud, layout=options.output_layout)
    size = options.output.stat().st_size
    names = ", ".join(cloud.attributes) or "no attributes"
    print(f"wrote {options.output}: {len(cloud):,} points, {names}, {size / 1e6:.2f} MB")
    return 0


def shrink(source: Path, target: Path) -> int:
    """Write a model with its floating weights in float16 (networks compute in float32 all the same).

    Raises:
        FormatError: the target is no ``.safetensors`` file, or a weight is beyond float16.
    """
    import torch

    from perception.io import checkpoint

    if target.suffix != ".safetensors":
        raise FormatError(target, "a model is written as .safetensors", "name such a file")
    tensors, metadata = checkpoint.load(source)
    halved = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    for name, tensor in halved.items():
        if tensor.is_floating_point() and bool(torch.isinf(tensor).any()):
            raise FormatError(source, f"{name} is too large for float16", "keep the file as it is")
    checkpoint.save(target, halved, metadata)
    before, after = source.stat().st_size, target.stat().st_size
    print(f"wrote {target}: {len(halved)} tensors, {before / 1e6:.1f} to {after / 1e6:.1f} MB")
    return 0
