"""The teacher's scores against OpenCV's own YuNet decoder, where the published file is at hand; its refusals everywhere."""

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
def test_the_best_cell_scores_what_opencv_finds_there() -> None:
    faces = open_dataset(load_data_config(ROOT / "configs" / "data" / "wider.yaml"), "train", 3)
    image = np.ascontiguousarray(cv2.resize(faces[2].image, (320, 256)))
    scores = pickle.loads(pickle.dumps(YunetTeacher(YUNET, 256, 320))).scores(image)
    assert scores.shape == (32 * 40 + 16 * 20 + 8 * 10,) and scores.dtype == np.float32
    judge = cv2.FaceDetectorYN.create(str(YUNET), "", (320, 256), 0.3, 0.3, 100)
    found = judge.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    assert found is not None and np.isclose(found[:, 14].max(), scores.max(), atol=1e-4)
    fine = scores[: 32 * 40].reshape(32, 40)
    for x, y, w, h, *_, score in found:
        if (level := fine == scores[np.abs(scores - score).argmin()]).any():
            row, column = np.argwhere(level)[0]
            assert x - 8 <= (column + 0.5) * 8 <= x + w + 8 and y - 8 <= (row + 0.5) * 8 <= y + h + 8


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="a multiple of 32 px, not 240x320: set train.crop"):
        YunetTeacher(tmp_path / "yunet.onnx", 240, 320)
    with pytest.raises(TeacherError, match="no such teacher"):
        YunetTeacher(tmp_path / "yunet.onnx", 256, 320)
    (tmp_path / "yunet.onnx").write_bytes(b"not a network")
    with pytest.raises(TeacherError, match="not a network"):
        YunetTeacher(tmp_path / "yunet.onnx", 256, 320)
