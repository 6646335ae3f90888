import pickle

import numpy as np
import pytest

from psld.data import CIFAR10
from small_data import cifar10_contents, python2_batch, scaled, tar_gz

CONTENTS, PIXELS, LABELS = cifar10_contents()


@pytest.fixture
def archive(tmp_path):
    tar_gz(tmp_path / "cifar-10-python.tar.gz", CONTENTS)
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path / "cifar-10-batches-py"


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def test_the_small_batches_are_real_pickles():
    batch = pickle.loads(CONTENTS["cifar-10-batches-py/data_batch_2"], encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], PIXELS[6:12].reshape(6, 3072))
    assert batch[b"labels"] == LABELS[6:12]


def test_pixels_labels_and_splits(archive):
    train, test = CIFAR10(archive), CIFAR10(archive / "cifar-10-python.tar.gz", "test")
    np.testing.assert_array_equal(train.batch(range(30)).numpy(), scaled(PIXELS[:30]))
    np.testing.assert_array_equal(test.batch(range(6)).numpy(), scaled(PIXELS[30:]))
    assert train.labels.tolist() + test.labels.tolist() == LABELS
    assert (train.classes[0], train.classes[9]) == ("airplane", "truck")


def test_archive_and_folder_are_the_same(folder):
    for root in (folder, folder.parent):
        np.testing.assert_array_equal(CIFAR10(root).array.numpy(), PIXELS[:30])


def test_batches_pickled_by_python_3_are_read_too(folder):
    batch = {"data": PIXELS[:2].reshape(2, -1), "labels": [3, 4]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=4))
    np.testing.assert_array_equal(CIFAR10(folder, "test").array.numpy(), PIXELS[:2])
    batch["data"] = np.asfortranarray(batch["data"])
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=4))
    np.testing.assert_array_equal(CIFAR10(folder, "test").array.numpy(), PIXELS[:2])


class Wicked:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('was_here').touch()",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_wants_to_run_code_does_not(folder, monkeypatch, protocol):
    monkeypatch.chdir(folder)
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": Wicked()}, protocol=protocol))
    with pytest.raises(ValueError, match=r"data_batch_3 names (__builtin__|builtins)\.exec, .*was not loaded"):
        CIFAR10(folder)
    assert not (folder / "was_here").exists()


@pytest.mark.parametrize(
    "name", ["os\nsystem", "numpy\nload", "numpy.core.multiarray\nfromfile", "numpy\nndarray.tofile", "_codecs\nencode"]
)
def test_every_other_name_is_refused_before_it_is_looked_up(folder, name):
    (folder / "test_batch").write_bytes(b"c" + name.encode() + b"\n.")
    with pytest.raises(ValueError, match="names " + name.replace("\n", r"\.")):
        CIFAR10(folder, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENTS["cifar-10-batches-py/test_batch"][:-2000], "test_batch is truncated or damaged"),
        (b"", "test_batch is truncated or damaged"),
        (pickle.dumps([1, 2]), "holds a list, not the dictionary"),
        (pickle.dumps({"labels": [1]}), "lacks the array 'data'"),
        (python2_batch(PIXELS[:2].reshape(2, -1)[:, :100], [1, 2]), r"shape \(2, 100\) and 2 labels"),
        (python2_batch(PIXELS[:2].reshape(2, -1), [1]), r"shape \(2, 3072\) and 1 labels"),
        (python2_batch(PIXELS[:2].reshape(2, -1), [1, 10]), "labels that are not whole numbers 0 … 9"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [1, 2]}), "not of 8-bit unsigned integers"),
        (pickle.dumps({"data": np.array([[Wicked]], dtype=object), "labels": [1]}, protocol=4), "Wicked"),
        (b"\x80\x02cnumpy\ndtype\n.", "holds a type, not the dictionary"),
        (b"\x80\x02cnumpy\ndtype\n}b.", "truncated or damaged"),
        (b"\x80\x02K\x01Q.", "refers to an object outside itself"),
    ],
)
def test_broken_batches_are_refused(folder, content, message):
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        CIFAR10(folder, "test")


def test_broken_archives_are_refused(archive):
    file = archive / "cifar-10-python.tar.gz"
    content = file.read_bytes()
    for broken in (content[: len(content) // 2], b"no archive", content[:5000] + b"\0" * 9 + content[5009:]):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz is truncated or damaged"):
            CIFAR10(archive, "test")
    tar_gz(file, {"cifar-10-batches-py/data_batch_1": b""})
    with pytest.raises(FileNotFoundError, match="lacks cifar-10-batches-py/data_batch_2, data_batch_3"):
        CIFAR10(archive)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="no cifar-10-python.tar.gz and no cifar-10-batches-py in"):
        CIFAR10(archive)


def test_a_missing_batch_is_named(folder):
    (folder / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match="lacks data_batch_4"):
        CIFAR10(folder)
