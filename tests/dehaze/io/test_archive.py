import zipfile

from dehaze.io import archive


def test_what_systems_keep_for_themselves_is_passed_over(tmp_path):
    names = ["a.jpg", "@home/b.jpg", "../c.jpg"]
    hidden = ["@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "in\\@eaDir\\a.jpg", "__MACOSX/._a.jpg", ".git/a.jpg", "in/.a.jpg"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for name in names + hidden:
            made.writestr(name, b"x")
    assert [member.filename for member in archive.list_members(tmp_path / "a.zip")] == names
