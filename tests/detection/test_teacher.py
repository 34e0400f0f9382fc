"""The teacher's scores and boxes against OpenCV's own YuNet decoder, where the published file is at hand; its refusals."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.catalog import open_dataset
from datasets.config import load_data_config
from detection.teacher import TeacherError, YunetTeacher

ROOT = Path(__file__).parents[2]
YUNET = ROOT / ".." / "shared" / "data" / "models" / "yunet_n_dynamic.onnx"
published = pytest.mark.skipif(not YUNET.is_file(), reason="needs ../shared/data/models/yunet_n_dynamic.onnx")


@published
def test_cells_say_what_opencv_finds() -> None:
    faces = open_dataset(load_data_config(ROOT / "configs" / "data" / "wider.yaml"), "train", 3)
    image = np.ascontiguousarray(cv2.resize(faces[2].image, (320, 256)))
    answers = pickle.loads(pickle.dumps(YunetTeacher(YUNET, 256, 320))).answers(image)
    assert answers.shape == (32 * 40 + 16 * 20 + 8 * 10, 5) and answers.dtype == np.float32
    boxes, scores = answers[:, :4], answers[:, 4]
    judge = cv2.FaceDetectorYN.create(str(YUNET), "", (320, 256), 0.3, 0.3, 100)
    found = judge.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    assert found is not None and np.isclose(found[:, 14].max(), scores.max(), atol=1e-4)
    for x, y, w, h, *_, score in found:
        cell = np.abs(scores - score).argmin()
        assert scores[cell] == pytest.approx(score, abs=1e-4) and boxes[cell] == pytest.approx([x, y, x + w, y + h], abs=0.1)
    fine = scores[: 32 * 40].reshape(32, 40)
    centre = np.argwhere(fine == fine.max())[0][::-1] * 8 + 4
    x1, y1, x2, y2 = boxes[fine.argmax()]
    assert x1 - 8 <= centre[0] <= x2 + 8 and y1 - 8 <= centre[1] <= y2 + 8


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="a multiple of 32 px, not 240x320: set train.crop"):
        YunetTeacher(tmp_path / "yunet.onnx", 240, 320)
    with pytest.raises(TeacherError, match="no such teacher"):
        YunetTeacher(tmp_path / "yunet.onnx", 256, 320)
    (tmp_path / "yunet.onnx").write_bytes(b"not a network")
    with pytest.raises(TeacherError, match="not a network"):
        YunetTeacher(tmp_path / "yunet.onnx", 256, 320)
