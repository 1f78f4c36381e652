import sys

import pytest

from psvit.engine.metrics import Metrics

ROWS = [{"epoch": epoch, "step": 4 * epoch, "loss": 1 / epoch, "top1": 0.1 * epoch} for epoch in (1, 2, 3)]


@pytest.fixture
def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def write(folder, epochs, rows):
    with Metrics(folder, ROWS[:epochs]) as metrics:
        for row in rows:
            metrics.write(row)


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.parametrize("epochs", [0, 1, 2, 3])
@pytest.mark.parametrize("torn", ["", "3,12,0.3", "3,"])
def test_a_resumed_file_equals_an_unbroken_one(tmp_path, epochs, torn):
    write(tmp_path / "unbroken", 0, ROWS)
    write(tmp_path / "resumed", 0, ROWS)
    path = tmp_path / "resumed" / "metrics.csv"
    path.write_text(path.read_text() + torn)
    write(tmp_path / "resumed", epochs, ROWS[epochs:])
    assert path.read_bytes() == (tmp_path / "unbroken" / "metrics.csv").read_bytes()
    assert path.read_text().splitlines()[:2] == ["epoch,step,loss,top1", "1,4,1.0,0.1"]


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.parametrize("content", [b"epoch,st", b"\0" * 50, None])
def test_a_table_that_was_lost_is_made_from_the_rows_of_the_checkpoint(tmp_path, content):
    write(tmp_path / "unbroken", 0, ROWS)
    (tmp_path / "resumed").mkdir()
    if content is not None:
        (tmp_path / "resumed/metrics.csv").write_bytes(content)
    write(tmp_path / "resumed", 2, ROWS[2:])
    assert (tmp_path / "resumed/metrics.csv").read_bytes() == (tmp_path / "unbroken/metrics.csv").read_bytes()


@pytest.mark.usefixtures("no_tensorboard")
def test_without_tensorboard_there_is_only_the_table(tmp_path):
    write(tmp_path, 0, ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_tensorboard_has_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 0, [{**row, "loss": 9.0} for row in ROWS])  # killed, and resumed after the first row
    for file in (tmp_path / "tensorboard").iterdir():  # TensorBoard reads files by name, which has the second in it
        file.rename(file.with_name(file.name.replace("tfevents.", "tfevents.0")))
    write(tmp_path, 1, ROWS[1:])  # the second and third row are written again
    events = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "top1"}
    latest = {event.step: event.value for event in events.Scalars("loss")}
    assert latest == pytest.approx({4: 9.0, 8: 1 / 2, 12: 1 / 3})
