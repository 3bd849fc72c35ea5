"""Parquet files from strangers: read within bounds, or refused.

pyarrow must not be asked for a column's codec: on a damaged footer that ends the process. So the codecs are read here.
"""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_FOOTER_BYTES = 100_000  # ours has some 5,000
_CODECS = {0, 1}  # none and Snappy, as we write; the others unpack without bound
_TEXT_BYTES = 200  # of all texts together, for each row that there may be


class ParquetError(ValueError):
    """The file is none of ours, or larger than ours get."""


def read(data: bytes, columns: dict[str, str], numbers: int, rows: int) -> "pa.Table":
    """Read a table with these `columns`, name and type, and at most so many `numbers` more, all of them of `double`.

    Raises ParquetError, or whatever pyarrow raises, if the file is damaged or of another kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not _codecs(data) <= _CODECS:
        raise ParquetError("its columns are packed in another way")
    file = pq.ParquetFile(pa.BufferReader(data))
    about, names = file.metadata, file.schema_arrow.names
    layout = [*columns.items(), *((name, "double") for name in names[len(columns) :])]
    found = [(field.name, str(field.type)) for field in file.schema_arrow]
    if found != layout or not len(set(names)) == len(names) <= len(columns) + numbers:
        raise ParquetError("it has other columns")
    if about.num_row_groups > 1 or about.num_rows > rows:
        raise ParquetError("it has too many rows")
    size = 0
    # A few rows at a time, as a short file may give every row the same long text.
    for batch in file.iter_batches(4, columns=[name for name, kind in layout if kind == "string"], use_threads=False):
        size += batch.nbytes
        if size > _TEXT_BYTES * rows:
            raise ParquetError("its texts are too long")
    return file.read(use_threads=False)


def _codecs(data: bytes) -> set[Any]:
    """Return the numbers of the codecs in the file's footer.

    Source: parquet.thrift of the Parquet format. FileMetaData: 4 row groups; RowGroup: 1 columns; ColumnChunk:
    3 metadata; ColumnMetaData: 4 codec.
    """
    size = int.from_bytes(data[-8:-4], "little")
    if data[-4:] != b"PAR1" or size > min(_FOOTER_BYTES, len(data) - 8):
        raise ParquetError("it has no footer")
    footer = _Compact(data[-8 - size : -8]).struct()
    return {column[3][4] for group in footer[4] for column in group[1]}


class _Compact:
    """Thrift's compact protocol, as far as a footer needs it. Raises ParquetError at the end of the data."""

    def __init__(self, data: bytes):
        self._file = io.BytesIO(data)

    def struct(self) -> dict[int, Any]:
        """Return the fields of a structure by number; each is there once, as readers differ on which counts."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = (number + (head >> 4) if head >> 4 else self._integer()) & 0xFFFF
            if number in fields:
                raise ParquetError("a field is there twice")
            fields[number] = self._value(head & 15)
        return fields

    def _value(self, kind: int, within: bool = False) -> Any:
        match kind:
            case 1 | 2 if not within:
                return kind == 1
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                return self._list()
            case 12:
                return self.struct()
        raise ParquetError("a footer has no such type")

    def _list(self) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._varint()
        return [self._value(head & 15, within=True) for _ in range(size)]

    def _integer(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)

    def _varint(self) -> int:
        number = 0
        for place in range(0, 64, 7):
            byte = self._byte()
            number |= (byte & 0x7F) << place
            if byte < 0x80:
                return number
        raise ParquetError("a number is too long")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        found = self._file.read(count)
        if len(found) < count:
            raise ParquetError("the footer ends too early")
        return found
