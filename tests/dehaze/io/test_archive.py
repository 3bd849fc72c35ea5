import io
import struct
import zipfile
from pathlib import Path

import pytest

from dehaze.errors import ImageError
from dehaze.io import archive


def packed(path: Path, names: dict[bytes, bytes], *, utf_8: bool = False, stored: bool = False) -> Path:
    """Write an archive with names of any bytes, whether or not they are what the flag says."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as made:
        for number, (name, data) in enumerate(names.items()):
            made.writestr(f"{number:0{len(name)}}", data)
    whole = bytearray(file.getvalue())
    for number, name in enumerate(names):
        placeholder = f"{number:0{len(name)}}".encode()
        for signature, flags, start in ((b"PK\3\4", 6, 30), (b"PK\1\2", 8, 46)):
            at = next(
                at
                for at in range(len(whole))
                if whole[at : at + 4] == signature and whole[at + start : at + start + len(name)] == placeholder
            )
            whole[at + start : at + start + len(name)] = name
            if utf_8:
                whole[at + flags + 1] |= 0x08
    path.write_bytes(whole)
    return path


def with_64_bit_end(path: Path, *, directory_bytes: int | None = None, comment: bytes = b"") -> Path:
    """Put a 64-bit end record into an archive, as streaming packers do, and nothing usable into the 32-bit one."""
    whole = path.read_bytes()
    end = whole.rindex(b"PK\5\6")
    count, size, offset = struct.unpack_from("<HII", whole, end + 10)
    size = size if directory_bytes is None else directory_bytes
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    plain = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, len(comment))
    path.write_bytes(whole[:end] + record + locator + plain + comment)
    return path


@pytest.mark.parametrize("comment", [b"", b"a comment"])
def test_a_64_bit_end_is_read(tmp_path, comment):
    path = with_64_bit_end(packed(tmp_path / "a.zip", {b"a.jpg": b"one", b"b.jpg": b"two"}), comment=comment)
    members = archive.list_members(path)
    assert [archive.read_member(path, member, 9) for member in members] == [b"one", b"two"]


def test_a_64_bit_member_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made, made.open("a.jpg", "w", force_zip64=True) as file:
        file.write(b"one")
    (member,) = archive.list_members(with_64_bit_end(tmp_path / "a.zip"))
    assert archive.read_member(tmp_path / "a.zip", member, 9) == b"one"


@pytest.mark.parametrize("size", [1_000_001, 2**40, 2**64 - 1])
def test_a_64_bit_end_that_states_a_huge_directory_is_refused_before_it_is_read(tmp_path, monkeypatch, size):
    path = with_64_bit_end(packed(tmp_path / "a.zip", {b"a.jpg": b"x"}), directory_bytes=size)
    monkeypatch.setattr(zipfile, "ZipFile", None)  # it would read it
    with pytest.raises(ImageError, match="too many members"):
        archive.list_members(path)


@pytest.mark.parametrize("utf_8", [False, True])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("東京タワー.jpg", "cp932"),
        ("写真/山.png", "cp932"),
        ("ソニー表.JPG", "cp932"),  # some second bytes are backslashes
        ("DSC日本1.jpg", "cp932"),
        ("照片.jpg", "gbk"),
        ("天安门_01.jpg", "gbk"),
        ("朱镕基.png", "gbk"),  # beyond GB 2312
        ("東京 é 🌫.jpg", "utf-8"),
        ("café.jpg", "cp437"),
        ("Müller Größe.jpg", "cp437"),
        ("Éclair/niño.png", "cp437"),
        ("a b.jpg", "ascii"),
    ],
)
def test_names_are_shown_right_and_never_fail(tmp_path, name, encoding, utf_8, stored):
    path = packed(
        tmp_path / "a.zip", {name.encode(encoding): b"PK\3\4\xff\xff\xff\xff", b"b": b"x"}, utf_8=utf_8, stored=stored
    )
    members = archive.list_members(path)
    assert [str(archive.member_path(member)) for member in members] == [name, "b"]
    assert [archive.read_member(path, member, 9) for member in members] == [b"PK\3\4\xff\xff\xff\xff", b"x"]


@pytest.mark.parametrize("utf_8", [False, True])
def test_names_of_no_encoding_do_not_fail(tmp_path, utf_8):
    names = {bytes(range(start, start + 32)): b"x" for start in range(128, 256, 32)}
    path = packed(tmp_path / "a.zip", names, utf_8=utf_8)
    members = archive.list_members(path)
    assert len({member.filename for member in members}) == 4
    assert all(archive.read_member(path, member, 9) == b"x" for member in members)


def test_what_systems_keep_for_themselves_is_passed_over(tmp_path):
    names = ["a.jpg", "@home/b.jpg", "../c.jpg"]
    hidden = ["@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "in\\@eaDir\\a.jpg", "__MACOSX/._a.jpg", ".git/a.jpg", "in/.a.jpg"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for name in names + hidden:
            made.writestr(name, b"x")
    assert [member.filename for member in archive.list_members(tmp_path / "a.zip")] == names
