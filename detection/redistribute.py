"""MCUNetV2's redistribution of the receptive field, for any Arch, and what it buys: `python -m detection.redistribute CONFIG`.

    python -m detection.redistribute configs/voc9.yaml
    python -m detection.redistribute mobilenet_v2 --size 224x224 --arch     # a preset; --arch prints the sibling as YAML

Patches (and rows) of an early, large map need more of the picture the more spatial kernels lie before it. The sibling keeps
none of stride 1 before stride 8 and spends the multiply-accumulates that this frees on blocks after it (MCUNetV2, section 3).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from datasets import cli
from detection.arch import INPUT, Arch, ArchError, Block, Stem, layer_macs, macs, receptive_field, shapes
from detection.config import load_config
from detection.lower import lower_structure
from detection.presets import PRESETS
from firmware.compiler.cost import Cost
from firmware.compiler.program import build_program
from firmware.compiler.schedule import patches
from firmware.compiler.search import deploy, search_front

STAGE_STRIDE = 8  # the patch stage ends at the first map of this stride (MCUNetV2, Figure 8)
DEEP_STRIDE = 16  # where freed work is spent: MobileNetV2-RD's two further blocks
PATCHES = 4  # a side, as in the paper's Table 1


class _Unit(NamedTuple):
    """One inverted residual; `Block` without `repeat`."""

    kernel: int
    expand: float
    channels: int
    stride: int


@dataclass(frozen=True)
class PatchReport:
    """What 4x4 patches need of a network. MACs of the whole network, heads included."""

    macs: int
    stage: str  # name of the stage's result
    receptive_field: int  # of one element of it, input pixels
    patch: int  # side of the input patch behind a 4x4th of it, borders not clipped
    halo: int  # pixels of a patch beyond its own share
    stage_macs: int
    stage_patch_macs: int  # of all patches, borders not clipped: the paper's stage column
    cost: Cost  # of the whole network under the paper's patches, clipped at the border, as it runs


def redistribute_receptive_field(arch: Arch, height: int = 224, width: int = 224) -> Arch:
    """The patch-friendly sibling of `arch` at equal multiply-accumulates, to a block.

    Before stride 8, blocks of stride 1 that keep their channels are left out, other kernels of stride 1 become 1x1, and kernels
    of stride 2 at most 3x3. What that frees is spent on copies of a block in the longest run of equal channels at stride 16
    (elsewhere from stride 8 on where those are too dear), as many as fit: the sibling never costs more. For MobileNetV2 the
    result is the paper's MobileNetV2-RD. An arch without such kernels comes back as it is.

    Raises:
        ArchError: no map of stride 8.
    """
    units = _flatten(arch.blocks)
    stop = _stage_length(arch, units)
    early: list[_Unit] = []
    channels = arch.stem.channels
    for unit in units[:stop]:
        if unit.stride == 2:
            early.append(unit._replace(kernel=min(unit.kernel, 3)))
        elif unit.kernel == 1 or unit.channels != channels:
            early.append(unit._replace(kernel=1))
        channels = unit.channels
    stem = arch.stem.model_copy(update={"kernel": min(arch.stem.kernel, 3) if arch.stem.stride == 2 else 1})
    thin = _with(arch, stem, [*early, *units[stop:]])
    freed = macs(arch, height, width) - macs(thin, height, width)
    return _deepened(thin, len(early), freed, height, width) if freed > 0 else arch


def patch_report(arch: Arch, height: int, width: int) -> PatchReport:
    """Measure an arch. Raises ArchError without a map of stride 8, or when 4x4 patches do not divide it."""
    layers = arch.layers()
    known, counts = shapes(layers, height, width), layer_macs(layers, height, width)
    units = _flatten(arch.blocks)
    last = f"block{_stage_length(arch, units)}/project"
    names = [layer.name for layer in layers]
    stage = layers[: names.index(last) + 1]
    if known[last].height % PATCHES or known[last].width % PATCHES:
        raise ArchError(f"{known[last].height}x{known[last].width} cells at stride {STAGE_STRIDE} cannot be cut into 4x4 patches")
    sides = {last: known[last].height // PATCHES}
    for layer in reversed(stage):
        for source in layer.inputs:
            sides[source] = max(sides.get(source, 0), (sides[layer.name] - 1) * layer.stride + layer.kernel)
    shares = {layer.name: (PATCHES * sides[layer.name] / known[layer.name].height) ** 2 for layer in stage}
    program = build_program(lower_structure(arch, height, width))
    return PatchReport(
        macs=sum(counts.values()),
        stage=last,
        receptive_field=receptive_field(layers, last),
        patch=sides[INPUT],
        halo=sides[INPUT] - height // PATCHES,
        stage_macs=sum(counts.get(name, 0) for name in shares),
        stage_patch_macs=round(sum(counts.get(name, 0) * share for name, share in shares.items())),
        cost=deploy(program, patches(program, PATCHES, PATCHES, len(stage))).cost,
    )


def own_cost(arch: Arch, height: int, width: int) -> Cost:
    """Of our schedule with the least peak_sram among those that compute nothing twice."""
    front = search_front(build_program(lower_structure(arch, height, width)))
    return min((point.cost for point in front), key=lambda cost: (cost.recompute > 0, cost.peak_sram))


def _flatten(blocks: Sequence[Block]) -> list[_Unit]:
    return [
        _Unit(block.kernel, block.expand, block.channels, block.stride if copy == 0 else 1)
        for block in blocks
        for copy in range(block.repeat)
    ]


def _with(arch: Arch, stem: Stem, units: Sequence[_Unit]) -> Arch:
    """`arch` with another stem and other blocks; equal neighbours become repeats."""
    blocks: list[Block] = []
    for unit in units:
        before = blocks[-1] if blocks else None
        if before and unit == (before.kernel, before.expand, before.channels, 1):
            blocks[-1] = before.model_copy(update={"repeat": before.repeat + 1})
        else:
            blocks.append(Block(**unit._asdict()))
    return arch.model_copy(update={"preset": None, "width": 1.0, "stem": stem, "blocks": tuple(blocks)})


def _stage_length(arch: Arch, units: Sequence[_Unit]) -> int:
    """Units up to the first that reaches stride 8."""
    stride = arch.stem.stride
    for number, unit in enumerate(units, start=1):
        stride *= unit.stride
        if stride == STAGE_STRIDE:
            return number
    raise ArchError(f"the backbone has no map of stride {STAGE_STRIDE}: there is no patch stage to thin out")


def _deepened(arch: Arch, stage: int, freed: int, height: int, width: int) -> Arch:
    """`arch` with as many more blocks after its first `stage` ones as `freed` multiply-accumulates pay for."""
    units = _flatten(arch.blocks)
    for position in _places(arch, units, stage):
        copy = units[position]._replace(stride=1)
        longer = [*units[: position + 1], copy, *units[position + 1 :]]
        cost = macs(_with(arch, arch.stem, longer), height, width) - macs(arch, height, width)
        if count := freed // cost:
            return _with(arch, arch.stem, [*units[: position + 1], *[copy] * count, *units[position + 1 :]])
    return arch


def _places(arch: Arch, units: Sequence[_Unit], stage: int) -> list[int]:
    """Last unit of every run of equal channels from the stage's end on: at stride 16 first, longest first."""
    runs: list[tuple[bool, int, int]] = []  # (not at stride 16, -length, last unit)
    stride, length = arch.stem.stride, 0
    for i, unit in enumerate(units):
        stride *= unit.stride
        same = i > 0 and unit.stride == 1 and unit.channels == units[i - 1].channels
        length = length + 1 if same else 1
        ends = i + 1 == len(units) or units[i + 1].stride == 2 or units[i + 1].channels != unit.channels
        if ends and i >= stage - 1:
            runs.append((stride != DEEP_STRIDE, -length, i))
    return [position for _, _, position in sorted(runs)]


def _read(source: str, size: str | None) -> tuple[Arch, int, int]:
    """A config's arch and input, or a preset's at `size`."""
    if source in PRESETS:
        arch, height, width = Arch(preset=source), 224, 224
    else:
        config = load_config(Path(source))
        arch, height, width = config.arch, config.input.height, config.input.width
    if size is not None:
        try:
            width, height = (int(part) for part in size.split("x"))
        except ValueError:
            raise ArchError(f"--size {size}: write WIDTHxHEIGHT, as in 224x224") from None
    return arch, height, width


def _table(names: Sequence[str], reports: Sequence[PatchReport], own: Sequence[Cost]) -> Table:
    table = Table("", *names)
    rows = {
        "MACs": lambda r: f"{r.macs / 1e6:.1f} M",
        "patch stage ends with": lambda r: r.stage,
        "receptive field there": lambda r: f"{r.receptive_field} px",
        "patch (4x4), halo": lambda r: f"{r.patch} px, {r.halo} px",
        "stage MACs, in patches": lambda r: (
            f"{r.stage_macs / 1e6:.1f} M, {r.stage_patch_macs / 1e6:.1f} M ({r.stage_patch_macs / r.stage_macs - 1:+.1%})"
        ),
        "4x4 patches as they run": lambda r: _show(r.cost),
    }
    for title, cell in rows.items():
        table.add_row(title, *(cell(report) for report in reports))
    table.add_row("our schedule", *map(_show, own))
    return table


def _show(cost: Cost) -> str:
    return f"{cost.recompute:+.1%} MACs, peak SRAM {cost.peak_sram:,} B"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help=f"experiment YAML, or a preset: {', '.join(PRESETS)}")
    parser.add_argument("--size", metavar="WxH", help="input of the network; the config's own, or 224x224, by default")
    parser.add_argument("--arch", action="store_true", help="print the redistributed architecture as YAML and stop")
    options = parser.parse_args()
    arch, height, width = _read(options.config, options.size)
    sibling = redistribute_receptive_field(arch, height, width)
    if options.arch:
        print(yaml.safe_dump({"arch": sibling.model_dump(mode="json", exclude_defaults=True)}, sort_keys=False), end="")
        return 0
    networks = {Path(options.config).stem: arch} | ({"redistributed": sibling} if sibling is not arch else {})
    reports, own = ([measure(network, height, width) for network in networks.values()] for measure in (patch_report, own_cost))
    Console(highlight=False, width=120).print(_table(list(networks), reports, own))
    if sibling is arch:
        print("no kernel of stride 1 before stride 8: there is nothing to redistribute")
    return 0


if __name__ == "__main__":
    cli.run(main)
