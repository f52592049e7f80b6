"""The registry of formats."""

from __future__ import annotations

import numpy as np
import pytest

from sonoloop.formats import FORMATS, Format


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_its_reader_and_its_writer(name):
    assert callable(FORMATS[name].read)
    assert callable(FORMATS[name].write)


def test_what_a_format_writes_it_reads(tmp_path):
    masks, mask = FORMATS["mask-png"], np.eye(5, dtype=np.uint8)
    masks.write(tmp_path / "a.png", mask)
    assert np.array_equal(masks.read(tmp_path / "a.png"), mask)


def test_a_format_is_one_file_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "own_masks.py").write_text(
        "import numpy as np\n"
        "def write(path, mask):\n    path.write_bytes(np.uint8(mask.shape).tobytes() + mask.tobytes())\n"
        "def read(path):\n"
        "    data = np.frombuffer(path.read_bytes(), np.uint8)\n    return data[2:].reshape(data[:2])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "own", Format("own_masks:read", "own_masks:write"))
    FORMATS["own"].write(tmp_path / "a.own", np.eye(3, dtype=np.uint8))
    assert FORMATS["own"].read(tmp_path / "a.own").tolist() == np.eye(3).tolist()
