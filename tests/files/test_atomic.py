"""What atomic_file asks of the operating system, in which order, and what it makes of its answers."""

import errno
import os
import stat

import pytest

from psld.files import DiskFullError, atomic_file, remove_unfinished


@pytest.fixture
def calls(monkeypatch):
    """Flushes and renames, in order; `fails` is raised by the flush of a "file" or a "folder"."""
    seen, fails = [], {}

    def fsync(descriptor, real=os.fsync):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, os.fstat(descriptor).st_size if kind == "file" else os.fstat(descriptor).st_ino))
        if kind in fails:
            raise fails[kind]
        real(descriptor)

    def replace(source, target, real=os.replace):
        seen.append(("replace", os.fspath(target)))
        real(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return seen, fails


def test_the_content_is_flushed_before_the_name_and_the_name_before_it_is_done(tmp_path, calls):
    with atomic_file(tmp_path / "a.bin") as file:
        file.write(b"12345")
        assert calls[0] == []
    flushed = [("file", 5), ("replace", str(tmp_path / "a.bin")), ("folder", tmp_path.stat().st_ino)]
    assert calls[0] == flushed


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_file_systems_that_cannot_flush_a_folder_are_written_to(tmp_path, calls, code):
    calls[1]["folder"] = OSError(code, os.strerror(code))
    with atomic_file(tmp_path / "a.bin") as file:
        file.write(b"12345")
    assert (tmp_path / "a.bin").read_bytes() == b"12345"


def test_a_folder_that_may_be_written_and_not_read(tmp_path, monkeypatch):
    def refused(path, flags, real=os.open, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, **options)

    monkeypatch.setattr(os, "open", refused)
    with atomic_file(tmp_path / "a.bin") as file:
        file.write(b"12345")
    assert (tmp_path / "a.bin").read_bytes() == b"12345"


def test_a_disk_that_fails_is_an_error_and_the_earlier_file_stays(tmp_path, calls):
    (tmp_path / "a.bin").write_bytes(b"before")
    calls[1]["file"] = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), atomic_file(tmp_path / "a.bin") as file:
        file.write(b"12345")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"before"
    calls[1].clear()
    calls[1]["folder"] = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), atomic_file(tmp_path / "a.bin") as file:
        file.write(b"12345")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_told_with_the_file_and_advice(tmp_path, calls, code):
    (tmp_path / "a.bin").write_bytes(b"before")
    calls[1]["file"] = OSError(code, os.strerror(code))
    with pytest.raises(DiskFullError) as full, atomic_file(tmp_path / "a.bin") as file:
        file.write(b"12345")
    assert full.value.errno == code
    advice = "free some space, or choose a folder on another disk"
    assert str(full.value) == f"{tmp_path}/a.bin cannot be written ({os.strerror(code)}): {advice}."
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"before"


def test_a_new_file_whose_folder_cannot_be_flushed_is_not_there(tmp_path, calls):
    """Otherwise it is in the way of the next try. A file that was there before has the new content."""
    calls[1]["folder"] = OSError(errno.ENOSPC, "No space left on device")
    for there, left in ((False, []), (True, [b"new"])):
        if there:
            (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(DiskFullError, match="file cannot be written"), atomic_file(tmp_path / "file") as file:
            file.write(b"new")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == left


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a[1].npz.12.partial", ".b.npz.3.partial", ".a[1].npz", "a[1].npz", ".x.partial", "y.12.partial"):
        (tmp_path / name).write_bytes(b"")
    remove_unfinished(tmp_path / "a[1].npz")
    assert not (tmp_path / ".a[1].npz.12.partial").exists()
    assert len(list(tmp_path.iterdir())) == 5
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a[1].npz", ".x.partial", "a[1].npz", "y.12.partial"]
