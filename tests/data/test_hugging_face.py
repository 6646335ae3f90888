import sys

import numpy as np
import pytest

from psld.data import HuggingFace
from small_data import encoded, random_bytes, save, scaled

datasets = pytest.importorskip("datasets")
PIXELS = random_bytes(5, 4, 4, 3)
WANTED = scaled(PIXELS.transpose(0, 3, 1, 2))


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def table():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    cells = [{"bytes": encoded(pixels), "path": None} for pixels in PIXELS]
    return datasets.Dataset.from_dict({"image": cells, "label": [0, 1, 1, 0, 1]}, features=features)


def test_saved_to_disk(table, tmp_path):
    table.save_to_disk(tmp_path / "one")
    data = HuggingFace(tmp_path / "one", 4, label_column="label")
    np.testing.assert_array_equal(data.batch([0, 1, 2, 3, 4]).numpy(), WANTED)
    assert data.labels is not None and data.labels.tolist() == [0, 1, 1, 0, 1] and data.classes == ("cat", "dog")
    splits = datasets.DatasetDict({"train": table.select(range(3)), "test": table.select([3, 4])})
    splits.save_to_disk(tmp_path / "two")
    np.testing.assert_array_equal(HuggingFace(tmp_path / "two", 4)[2].numpy(), WANTED[2])
    np.testing.assert_array_equal(HuggingFace(tmp_path / "two", 4, "test")[0].numpy(), WANTED[3])
    with pytest.raises(ValueError, match="has no split 'valid'. It has: train, test"):
        HuggingFace(tmp_path / "two", 4, "valid")


def test_parquet(table, tmp_path):
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    table.select([0, 1]).to_parquet(folder / "train-00000-of-00002.parquet")
    table.select([2]).to_parquet(folder / "train-00001-of-00002.parquet")
    table.select([3, 4]).to_parquet(folder / "test-00000-of-00001.parquet")
    np.testing.assert_array_equal(HuggingFace(tmp_path / "set", 4).batch([0, 1, 2]).numpy(), WANTED[:3])
    np.testing.assert_array_equal(HuggingFace(tmp_path / "set", 4, "test", flip=True)[2].numpy(), WANTED[3, ..., ::-1])
    np.testing.assert_array_equal(HuggingFace(folder / "test-00000-of-00001.parquet", 4)[1].numpy(), WANTED[4])
    with pytest.raises(ValueError, match=r"no Parquet file of split 'tes'. It has: test-00000"):
        HuggingFace(tmp_path / "set", 4, "tes")


def test_cells_that_name_files(tmp_path):
    save(tmp_path / "a.png", PIXELS[0])
    features = datasets.Features({"picture": datasets.Image()})
    table = datasets.Dataset.from_dict({"picture": [str(tmp_path / "a.png")]}, features=features)
    table.save_to_disk(tmp_path / "one")
    data = HuggingFace(tmp_path / "one", 4, image_column="picture")
    np.testing.assert_array_equal(data[0].numpy(), WANTED[0])


def test_refusals(table, tmp_path, monkeypatch):
    table.save_to_disk(tmp_path / "one")
    with pytest.raises(ValueError, match=r"row 0 of .*one\[train\] is 4×4, image_size=8"):
        HuggingFace(tmp_path / "one", 8)
    with pytest.raises(ValueError, match="image_column='img' is not a column of .* It has: image, label"):
        HuggingFace(tmp_path / "one", 4, image_column="img")
    with pytest.raises(ValueError, match="column 'label' of .* not encoded images"):
        HuggingFace(tmp_path / "one", 4, image_column="label")
    with pytest.raises(ValueError, match="column 'image' of .* must hold names or whole numbers"):
        HuggingFace(tmp_path / "one", 4, label_column="image")
    with pytest.raises(FileNotFoundError, match=r"no folder or file \./nowhere"):
        HuggingFace("./nowhere", 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no data set in"):
        HuggingFace(tmp_path / "empty", 4)
    cells = [{"bytes": encoded(PIXELS[0]), "path": None}, {"bytes": b"no image", "path": None}]
    broken = datasets.Dataset.from_dict({"image": cells}, features=datasets.Features({"image": datasets.Image()}))
    broken.save_to_disk(tmp_path / "broken")
    with pytest.raises(ValueError, match="row 1 of .* cannot be read as an image"):
        HuggingFace(tmp_path / "broken", 4)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'psld\[datasets\]'"):
        HuggingFace(tmp_path / "one", 4)


def test_what_is_not_on_disk_is_asked_of_the_hub(table, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []

    def load_dataset(source, **options):
        asked.append((source, options))
        if source == "nobody/nothing":
            raise FileNotFoundError("no such data set")
        return table

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = HuggingFace("somebody/cats-and.dogs", 4, "test", config="small", revision="abc")
    assert asked == [("somebody/cats-and.dogs", {"name": "small", "split": "test", "revision": "abc"})]
    np.testing.assert_array_equal(data[4].numpy(), WANTED[4])
    with pytest.raises(FileNotFoundError, match="no folder nobody/nothing here, and the hub did not give it: no such"):
        HuggingFace("nobody/nothing", 4)
    for source in ("nowhere/here.parquet", "/no/where", "../a/b"):
        with pytest.raises(FileNotFoundError, match="not the name of a data set on the hub"):
            HuggingFace(source, 4)
