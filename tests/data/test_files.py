"""Reading lines and writing folders."""

import gzip

import pytest

from modeling_clir.data.files import new_folder, read_lines

from ..helpers import write


def test_lines_that_are_not_utf8(tmp_path):
    (tmp_path / "x.txt").write_bytes("fine\n\né\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.txt:3: not UTF-8"):
        list(read_lines(tmp_path / "x.txt"))


def test_damaged_gzip(tmp_path):
    path = write(tmp_path / "x.txt.gz", *map(str, range(1000)))
    for data in (path.read_bytes()[:-20], b"plain text", gzip.compress(b"one")[:-8] + bytes(8)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.txt\.gz: not a complete gzip file"):
            list(read_lines(path))


def test_new_folder_is_all_or_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with new_folder(tmp_path / "new") as folder:
            write(folder / "a/b", "text")
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "new") as folder:
        write(folder / "a/b", "text")
        assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "a", "b"]
    with pytest.raises(FileExistsError, match="new exists"):
        with new_folder(tmp_path / "new"):
            pass
