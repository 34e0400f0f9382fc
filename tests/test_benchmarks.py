"""The benchmark of published schedules starts from the paper's own figures."""

import json
from pathlib import Path

import pytest

from benchmarks import paper_tables
from benchmarks.networks import MOBILENET_V2, MOBILENET_V2_RD, backbone
from firmware.compiler.program import build_program
from firmware.compiler.schedule import patches
from firmware.compiler.search import deploy


@pytest.mark.parametrize(("blocks", "patch", "recompute"), [(MOBILENET_V2, 75, 0.093), (MOBILENET_V2_RD, 63, 0.029)])
def test_mcunet_v2_table_1(blocks: tuple, patch: int, recompute: float) -> None:
    graph = backbone("network", blocks, 224)
    split = paper_tables.patch_split(graph)
    assert round(max(paper_tables.paper_layers(graph)) / 1024) == 1372
    assert round(paper_tables.paper_patches(graph, split) / 1024) == 172
    assert paper_tables.input_patch(graph, split) == patch
    program = build_program(graph)
    assert deploy(program, patches(program, 4, 4, split)).cost.recompute == pytest.approx(recompute, abs=5e-4)


def test_the_committed_table_reproduced_the_paper() -> None:
    document = json.loads(Path("benchmarks/paper_tables.json").read_text())
    paper_tables.check_paper(document["networks"])
    for row in document["networks"]:
        peaks = [point["all_in"] for point in row["front"]]
        assert peaks == sorted(peaks, reverse=True) and peaks[0] < row["layer"]["all_in"]
