"""The loss: its terms, what moves them, and that every parameter learns."""

import pytest
import torch

from detection.arch import Arch
from detection.assign import Truth
from detection.config import LossConfig
from detection.decode import decode_boxes, flatten
from detection.loss import detection_loss
from detection.model.detector import Detector

torch.set_num_threads(1)  # two threads on a busy machine wait for each other

BLOCKS = [{"channels": 8, "stride": 2, "expand": 2}, {"channels": 8, "stride": 2, "expand": 2}]
HEAD = {"strides": [4, 8], "channels": [8, 8]}


def make(n_classes: int) -> Detector:
    torch.manual_seed(0)
    return Detector(Arch.model_validate({"stem": {"channels": 4}, "blocks": BLOCKS, "head": HEAD, "num_classes": n_classes}))


def truth_of(*rows: tuple[int, float, float, float, float, int, bool]) -> Truth:
    image, labels, ignore = ([row[i] for row in rows] for i in (0, 5, 6))
    boxes = torch.tensor([row[1:5] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return Truth(boxes, torch.tensor(labels, dtype=torch.int64), torch.tensor(ignore, dtype=torch.bool),
                 torch.tensor(image, dtype=torch.int64))  # fmt: skip


def answers_of(model: Detector, outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A teacher's that says what the network says itself."""
    cells = flatten(model.arch, outputs)
    boxes = decode_boxes(cells.box, cells.centers, cells.strides)
    return torch.cat([boxes, cells.objectness[..., None].sigmoid()], -1).detach()


@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("box_kind", ["ciou", "eiou"])
@pytest.mark.parametrize("objectness_kind", ["quality_focal", "bce"])
def test_terms_are_finite_and_reach_every_parameter(n_classes: int, box_kind: str, objectness_kind: str) -> None:
    model = make(n_classes).train()
    truth = truth_of((0, 4, 4, 20, 22, n_classes - 1, False), (1, 10, 8, 16, 15, 0, False), (1, 1, 1, 3, 3, 0, True))
    config = LossConfig(box_kind=box_kind, objectness_kind=objectness_kind)
    loss = detection_loss(model.arch, model(torch.randn(2, 3, 32, 32)), truth, config)
    assert set(loss.terms) == {"box", "objectness"} | ({"class"} if n_classes > 1 else set())
    assert loss.positives >= 2 and all(torch.isfinite(term) for term in loss.terms.values())
    loss.total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("rows", [(), ((0, 4, 4, 20, 22, 0, True),)])
def test_pictures_without_objects_teach_objectness_only(rows: tuple) -> None:
    model = make(1)
    loss = detection_loss(model.arch, model(torch.randn(2, 3, 32, 32)), truth_of(*rows), LossConfig())
    assert loss.positives == 0 and loss.terms["box"] == 0 and loss.terms["objectness"] > 0
    loss.total.backward()


def test_an_ignored_area_teaches_nothing() -> None:
    model = make(1).eval()
    outputs = [output.detach().requires_grad_() for output in model(torch.randn(1, 3, 32, 32))]
    detection_loss(model.arch, tuple(outputs), truth_of((0, 0, 0, 16, 32, 0, True)), LossConfig()).total.backward()
    left, right = outputs[0].grad[0, 0, :, :4], outputs[0].grad[0, 0, :, 4:]
    assert (left == 0).all() and (right > 0).all()


def test_a_teacher_pulls_scores_towards_its_own() -> None:
    model = make(1).eval()
    outputs = model(torch.randn(1, 3, 32, 32))
    agrees = detection_loss(model.arch, outputs, truth_of(), LossConfig(), answers_of(model, outputs))
    assert agrees.terms["teacher"] == 0
    raised = answers_of(model, outputs)
    raised[0, 5, 4] += 0.2
    detection_loss(model.arch, outputs, truth_of(), LossConfig(objectness=0), raised).total.backward()
    bias = model.convs["head4/objectness"].conv.bias.grad
    assert bias < 0  # a step against the gradient raises the score


def test_a_teacher_pulls_boxes_where_it_is_sure() -> None:
    model = make(1).eval()
    outputs = [output.detach().requires_grad_() for output in model(torch.randn(1, 3, 32, 32))]
    answers = answers_of(model, outputs)
    answers[..., 4] = 0.1
    answers[0, 9, 4] = 0.8
    config = LossConfig(objectness=0, teacher=0, teacher_box=1)
    agrees = detection_loss(model.arch, tuple(outputs), truth_of(), config, answers)
    assert agrees.terms["teacher_box"].detach() < 1e-5
    answers[0, :, 2:4] += 3
    loss = detection_loss(model.arch, tuple(outputs), truth_of(), config, answers)
    loss.total.backward()
    moved = outputs[1].grad[0].flatten(1)
    assert loss.terms["teacher_box"] > 0 and (moved[2:, 9] < 0).all()  # right and bottom are to grow
    assert moved.any(0).nonzero().ravel().tolist() == [9]


def test_where_a_teacher_is_sure_nobody_is_taught_that_nothing_is_there() -> None:
    model = make(1).eval()
    outputs = [output.detach().requires_grad_() for output in model(torch.randn(1, 3, 32, 32))]
    answers = answers_of(model, outputs)
    answers[..., 4] = 0.0
    answers[0, 9, 4] = 0.5
    detection_loss(model.arch, tuple(outputs), truth_of(), LossConfig(teacher=0, teacher_box=0), answers).total.backward()
    pushed = outputs[0].grad.flatten()
    assert pushed[9] == 0 and (pushed[:9] > 0).all() and (pushed[10:] > 0).all()


def test_a_teacher_is_not_asked_about_faces_too_small_for_it() -> None:
    model = make(1).eval()
    outputs = [output.detach().requires_grad_() for output in model(torch.randn(1, 3, 32, 32))]
    answers = answers_of(model, outputs)
    answers[..., :4] += 5
    answers[..., 4] = 0.9
    config = LossConfig(objectness=0, box=0, teacher_from=12)
    detection_loss(model.arch, tuple(outputs), truth_of((0, 0, 0, 8, 8, 0, False)), config, answers).total.backward()
    for map_ in outputs[:2]:
        touched = map_.grad[0].any(0)
        assert not touched[:2, :2].any() and touched[2:, :].all() and touched[:, 2:].all()


def test_weights_scale_their_terms() -> None:
    model, truth = make(3).eval(), truth_of((0, 4, 4, 20, 22, 1, False))
    outputs = model(torch.randn(1, 3, 32, 32))
    once = detection_loss(model.arch, outputs, truth, LossConfig(box=1, objectness=1, classes=1)).terms
    twice = detection_loss(model.arch, outputs, truth, LossConfig(box=2, objectness=3, classes=0)).terms
    assert torch.isclose(twice["box"], 2 * once["box"]) and torch.isclose(twice["objectness"], 3 * once["objectness"])
    assert twice["class"] == 0


def test_it_falls_on_one_batch() -> None:
    model = make(2).train()
    images, truth = torch.randn(2, 3, 32, 32), truth_of((0, 4, 4, 20, 22, 1, False), (1, 10, 8, 24, 25, 0, False))
    values = []
    for _ in range(40):  # plain descent: the first use of torch.optim imports seconds of compiler
        loss = detection_loss(model.arch, model(images), truth, LossConfig()).total
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.05 * gradient
        values.append(loss.item())
    assert sum(values[-5:]) < 0.4 * sum(values[:5])
