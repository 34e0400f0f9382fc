"""Who learns what: properties of the assignment on random batches."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.assign import Truth, assign, ignored_cells
from detection.decode import Cells

torch.set_num_threads(1)  # two threads on a busy machine wait for each other

GRIDS = ((8, 8, 12), (16, 4, 6))


def make_cells(n_images: int, n_classes: int, seed: int) -> Cells:
    generator = torch.Generator().manual_seed(seed)
    centers, strides = [], []
    for stride, rows, columns in GRIDS:
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centers.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((rows * columns,), float(stride)))
    count = sum(rows * columns for _, rows, columns in GRIDS)
    classes = torch.randn(n_images, count, n_classes, generator=generator) if n_classes > 1 else None
    return Cells(torch.randn(n_images, count, generator=generator), classes,
                 torch.randn(n_images, count, 4, generator=generator) * 0.3 + 0.5,
                 torch.cat(centers), torch.cat(strides), GRIDS)  # fmt: skip


def make_truth(n_images: int, n_classes: int, count: int, seed: int) -> Truth:
    generator = torch.Generator().manual_seed(seed + 1)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([80.0, 50.0])
    boxes = torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * 12], 1)
    integers = torch.randint(0, 1000, (3, count), generator=generator)
    return Truth(boxes, integers[0] % n_classes, integers[1] % 4 == 0, integers[2] % n_images)


@given(st.integers(0, 10_000), st.integers(0, 30), st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_a_cell_learns_one_object_of_its_picture_and_near_its_centre(seed: int, count: int, n_classes: int) -> None:
    cells, truth = make_cells(2, n_classes, seed), make_truth(2, n_classes, count, seed)
    found = assign(cells, truth)
    places = (found.image * 1000 + found.cell).tolist()
    assert len(places) == len(set(places))
    assert (truth.image[found.target] == found.image).all() and not truth.ignore[found.target].any()
    center = (truth.boxes[found.target, :2] + truth.boxes[found.target, 2:]) / 2
    distance = (cells.centers[found.cell] - center).abs().amax(1)
    assert (distance <= 1.5 * cells.strides[found.cell]).all()


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_lone_object_always_gets_a_cell(seed: int) -> None:
    cells, truth = make_cells(1, 1, seed), make_truth(1, 1, 1, seed)
    assert len(assign(cells, truth._replace(ignore=torch.tensor([False]))).cell) >= 1


def test_a_batch_is_its_pictures() -> None:
    cells, truth = make_cells(3, 3, 5), make_truth(3, 3, 20, 5)
    together = assign(cells, truth)
    for image in range(3):
        mine = (truth.image == image).nonzero()[:, 0]
        alone = assign(
            cells._replace(objectness=cells.objectness[image : image + 1], classes=cells.classes[image : image + 1],
                           box=cells.box[image : image + 1]),
            Truth(truth.boxes[mine], truth.labels[mine], truth.ignore[mine], torch.zeros_like(mine)),
        )  # fmt: skip
        rows = together.image == image
        assert together.cell[rows].tolist() == alone.cell.tolist()
        assert together.target[rows].tolist() == mine[alone.target].tolist()


def test_a_good_prediction_attracts_its_object() -> None:
    """A cell that predicts the box exactly is among those that learn it."""
    cells = make_cells(1, 1, 0)
    box = torch.tensor([[20.0, 12.0, 44.0, 40.0]])
    cell = 3 * 12 + 4  # stride 8, centre (36, 28)
    distance = torch.tensor([36.0 - 20, 28.0 - 12, 44.0 - 36, 40.0 - 28])
    cells.box[0, cell] = (distance / 8 + 0.5).log()
    zero = torch.zeros(1, dtype=torch.int64)
    found = assign(cells, Truth(box, zero, torch.tensor([False]), zero))
    assert cell in found.cell.tolist()


def test_ignored_boxes_mask_the_cells_that_they_touch() -> None:
    cells = make_cells(2, 1, 0)
    truth = Truth(torch.tensor([[9.0, 9.0, 15.0, 15.0], [0.0, 0.0, 90.0, 60.0]]), torch.zeros(2, dtype=torch.int64),
                  torch.tensor([True, False]), torch.tensor([1, 0]))  # fmt: skip
    mask = ignored_cells(cells, truth, 2)
    assert not mask[0].any()
    assert mask[1].nonzero()[:, 0].tolist() == [13, 96]  # the one cell of stride 8, the one of stride 16


def test_no_objects_no_cells() -> None:
    found = assign(make_cells(2, 1, 0), make_truth(2, 1, 0, 0))
    assert len(found.cell) == len(found.image) == len(found.target) == 0
