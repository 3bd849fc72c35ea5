from bench.report.table import tables
from leaderboard.citation import bibtex


def test_entries_say_what_records_know(make):
    [table] = tables(
        [
            make("AOD-Net", {"psnr": 20.0}, paper="https://arxiv.org/abs/1707.06543v2"),
            make("TOE_Net 2", {"psnr": 19.0}, paper="Gao & others, IEEE 2023"),
            make("dcp", {"psnr": 18.0}),
        ]
    )
    entries = bibtex(table).split("\n\n")
    assert entries[0].startswith("@misc{dehaze-sample-native-v1,\n")
    assert "title = {Dehazing methods on sample under native-v1}" in entries[0]
    assert "3 methods, scored from 2025-03-01 to 2025-03-01; 10 images, fingerprint abababababababab" in entries[0]
    assert entries[1] == (
        "@misc{AOD-Net,\n  title = {AOD-Net},\n  eprint = {1707.06543},\n  archiveprefix = {arXiv},\n"
        "  howpublished = {\\url{https://arxiv.org/abs/1707.06543v2}},\n}"
    )
    assert entries[2] == (
        "@misc{TOE_Net-2,\n  title = {TOE\\_Net 2},\n  howpublished = {Gao \\& others, IEEE 2023},\n}"
    )
    assert entries[3] == "% no paper stated: dcp\n"
