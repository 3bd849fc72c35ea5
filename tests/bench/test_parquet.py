"""Parquet files from strangers: what is ours comes back, what is not is refused before it is unpacked."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import parquet

COLUMNS = {"id": "string", "width": "int64"}


def packed(columns, **options):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue().to_pybytes()


def table(rows=4, **more):
    return {"id": [f"image {i}" for i in range(rows)], "width": list(range(rows))} | more


@pytest.mark.parametrize("rows", [0, 1, 1000])
@pytest.mark.parametrize("options", [{}, {"compression": "none"}, {"use_dictionary": False}, {"version": "1.0"}])
def test_what_is_within_bounds_comes_back(rows, options):
    columns = table(rows, psnr=[0.5] * rows)
    types = pa.schema([("id", pa.string()), ("width", pa.int64()), ("psnr", pa.float64())])
    made = pa.table(columns, types)
    assert parquet.read(packed(made, **options), COLUMNS, 1, 1000) == made


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        (table(), {"compression": "zstd"}, "packed in another way"),
        (table(), {"compression": {"id": "snappy", "width": "gzip"}}, "packed in another way"),
        (table(), {"row_group_size": 2}, "too many rows"),
        (table(1001), {}, "too many rows"),
        (table(psnr=[0.5] * 4, ssim=[0.5] * 4), {}, "other columns"),
        (table(psnr=["0.5"] * 4), {}, "other columns"),
        (table(psnr=[[0.5]] * 4), {}, "other columns"),
        ({"width": [1], "id": ["a"]}, {}, "other columns"),
        ({"id": ["x" * 50_000] * 20, "width": [1] * 20}, {}, "texts are too long"),
    ],
)
def test_what_would_unpack_to_more_is_refused_before(monkeypatch, columns, options, words):
    data = packed(columns, **options)
    monkeypatch.setattr(pq.ParquetFile, "read", None)  # it would unpack the whole
    with pytest.raises(parquet.ParquetError, match=words):
        parquet.read(data, COLUMNS, 1, 1000)


def test_texts_that_grow_from_one_to_the_next_are_refused_before_they_fill_the_memory(monkeypatch):
    """Each text is the one before and a letter more."""
    texts = ["x" * (20_000 + i) for i in range(1_000)]
    options = {"use_dictionary": False, "column_encoding": {"id": "DELTA_BYTE_ARRAY"}}
    data = packed({"id": texts, "width": [1] * len(texts)}, **options)
    assert len(data) < 20_000
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    with pytest.raises(parquet.ParquetError, match="texts are too long"):
        parquet.read(data, COLUMNS, 0, 1000)


def test_a_footer_with_any_bit_flipped_does_not_end_the_process():
    """pyarrow ends it where a footer of which it is asked a column's codec is damaged."""
    whole = packed(table(), write_page_checksum=True)
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    refused = 0
    for place in range(len(whole) - footer, len(whole)):
        for bit in range(0, 8, 3):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            try:
                parquet.read(bytes(data), COLUMNS, 0, 1000).to_pylist()
            except Exception:  # of any kind, as long as it is one
                refused += 1
    assert refused > footer


def test_a_field_that_is_there_twice_hides_no_codec():
    """Readers differ on which of two fields counts."""
    [codec] = parquet._codecs(packed({"id": ["a"]}))
    assert codec == 1
    assert parquet._Compact(b"\x15\x02\x15\x04\x00").struct() == {1: 1, 2: 2}
    for data in (b"\x15\x02\x05\x02\x04\x00", b"\x15\x02\x15\x04", b"\x1d\x00", b"\x15" + b"\xff" * 10, b"\x18\x7fa"):
        with pytest.raises(parquet.ParquetError):
            parquet._Compact(data).struct()
