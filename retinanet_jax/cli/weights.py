"""List the public weights by name, with size, licence, and whether they are in the cache.

    retinanet-jax weights
    retinanet-jax weights resnet50

A name works wherever weights are expected: --model=torchvision/retinanet_resnet50_fpn_v2 in detect,
serve, evaluate and export, --config.model.pretrained=timm/resnet50.a1_in1k in train. The size
is the published one, '-' if there is none. 'hash' shows whether the file's SHA-256 is known (its
first eight digits); for other files, only the format is checked.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is listed."""
    parser.add_argument("filter", nargs="*", help="parts of names; default: all names")


def run(arguments: argparse.Namespace) -> None:
    """Prints the table."""
    from retinanet_jax.weights.locations import cached_path, default_cache_dir
    from retinanet_jax.weights.public_weights import PUBLIC_WEIGHTS

    cache = default_cache_dir() / "weights"
    parts = [part.lower() for part in arguments.filter]
    found = [w for w in PUBLIC_WEIGHTS.values() if all(part in w.name.lower() for part in parts)]
    if not found:
        print(
            f"no name contains {' and '.join(parts)}; run `retinanet-jax weights` to list all names"
        )
    for title, kind in (
        ("ImageNet backbones, for --config.model.pretrained", [w for w in found if not w.recipe]),
        ("RetinaNets of COCO, also for --model", [w for w in found if w.recipe]),
    ):
        if kind:
            print(f"{title}:\n  {'name':54} {'MiB':>6}  {'licence':13} hash  cached")
        for weights in kind:
            size = f"{weights.mib:.0f}" if weights.mib else "-"
            known = "yes" if weights.sha256 else "no"
            cached = "yes" if cached_path(weights).is_file() else ""
            row = f"  {weights.name:54} {size:>6}  {weights.license:13} {known:5} {cached}"
            print(row.rstrip())
    print(f"cache: {cache}")
