//! `arrow`: the stream format of Arrow IPC, which PyArrow, Polars and DuckDB read batch by batch.

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;

use super::portable::Portable;
use super::{Encoder, Format};
use crate::error::{Error, Result};

/// Writes the schema, then each batch as it comes, then the mark of the end, by which a stream that was cut is known.
pub(super) struct Arrow {
    portable: Portable,
    writer: StreamWriter<Vec<u8>>,
    rows: u64,
}

impl Arrow {
    pub(super) fn try_new(schema: &SchemaRef) -> Result<Self> {
        let portable = Portable::new(schema, Format::Arrow);
        let writer = StreamWriter::try_new(Vec::new(), portable.schema()).map_err(failed)?;
        Ok(Self { portable, writer, rows: 0 })
    }
}

impl Encoder for Arrow {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<bool> {
        self.writer.write(&self.portable.batch(batch)?).map_err(failed)?;
        out.append(self.writer.get_mut());
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(u64, Vec<String>)> {
        self.writer.finish().map_err(failed)?;
        out.append(self.writer.get_mut());
        Ok((self.rows, Vec::new()))
    }
}

fn failed(cause: ArrowError) -> Error {
    Error::internal("failed to write the result as an Arrow stream").with_source(cause)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray as _;
    use arrow::datatypes::{DataType, Int64Type};
    use arrow::ipc::reader::StreamReader;

    use super::super::tests::{MIXED, rows};
    use super::super::{Outcome, Sink};
    use super::*;

    #[tokio::test]
    async fn stream_holds_the_rows_and_its_end() {
        let mut out = Vec::new();
        let end = Sink::new(Format::Arrow).write(rows(MIXED).await, &mut out).await.unwrap();
        assert_eq!((end.rows, end.outcome), (3, Outcome::Complete));
        let reader = StreamReader::try_new(&out[..], None).unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
        assert_eq!(batches[0].column(0).as_string::<i32>().value(0), "t1");
        assert!(batches[0].column(1).as_primitive::<Int64Type>().iter().eq([Some(1), None]));
        assert!(out.ends_with(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), "the mark of the end");
        // Rows are there before the end.
        let cut = StreamReader::try_new(&out[..out.len() - 8], None).unwrap();
        assert_eq!(cut.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);

        let mut empty = Vec::new();
        Sink::new(Format::Arrow).write(rows("SELECT 1 AS n WHERE false").await, &mut empty).await.unwrap();
        let reader = StreamReader::try_new(&empty[..], None).unwrap();
        assert_eq!(reader.schema().field(0).name(), "n");
        assert_eq!(reader.count(), 0);
    }

    #[tokio::test]
    async fn types_of_the_engine_become_types_of_everybody() {
        for (sql, expected) in [
            ("arrow_cast('a', 'Utf8View')", DataType::Utf8),
            ("arrow_cast('a', 'Dictionary(Int32, Utf8)')", DataType::Utf8),
            ("NULL", DataType::Utf8),
            ("arrow_cast(make_array('a'), 'List(Utf8View)')", DataType::new_list(DataType::Utf8, true)),
            ("arrow_cast('a', 'LargeUtf8')", DataType::LargeUtf8),
            ("1", DataType::Int64),
        ] {
            let mut out = Vec::new();
            let rows = rows(&format!("SELECT {sql} AS value")).await;
            Sink::new(Format::Arrow).write(rows, &mut out).await.unwrap();
            let reader = StreamReader::try_new(&out[..], None).unwrap();
            assert_eq!(*reader.schema().field(0).data_type(), expected, "{sql}");
            assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1);
        }
    }
}
