"""What makes Arrow and Parquet files safe to read: their libraries trust offsets and sizes that damage can change."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from control.files.boundary import refuse_bombs


def check_arrow(path: Path) -> None:
    """Walks through an Arrow file (a stream or a table file) and raises where a column points outside its own data."""
    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            source.seek(0)
            batches = iter(pa.ipc.open_stream(source))
        declared = 0
        for batch in batches:
            batch.validate(full=True)
            declared += batch.nbytes
            refuse_bombs(path, declared)


def read_parquet(path: Path) -> pa.Table:
    """The table, once its declared size is seen to be possible."""
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        cells = file.metadata.num_rows * max(1, file.metadata.num_columns)
        refuse_bombs(path, max(8 * cells, sum(group.total_byte_size for group in groups)))
        table = file.read()
    table.validate(full=True)
    return table
