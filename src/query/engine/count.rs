//! `count(DISTINCT text)` per group, exact, with some twenty bytes for each record id.
//!
//! The engine keeps a set of texts for every group, copies the sets between the stages of a plan, and a million customers
//! per month and queue come to more than half a gigabyte. Ids of the source are 24 hexadecimal digits, twelve bytes, which
//! stand in a table of each group as they are. Other texts are kept once for all groups, and counted by their number.
//!
//! Between stages a group's values are two byte strings: its ids one after the other, and its other texts, each after its
//! length (`u32` little-endian).

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, LargeBinaryArray, LargeBinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};

use crate::model::ObjectId;

/// The engine's `count`, with another way to count distinct texts.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Count {
    inner: Arc<AggregateUDF>,
}

impl Count {
    pub(super) const fn of(inner: Arc<AggregateUDF>) -> Self {
        Self { inner }
    }
}

fn is_ours(is_distinct: bool, fields: &[FieldRef]) -> bool {
    let is_text =
        |field: &FieldRef| matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    is_distinct && fields.len() == 1 && fields.iter().all(is_text)
}

impl AggregateUDFImpl for Count {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().human_display(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.inner().window_function_schema_name(params)
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().display_name(params)
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.inner().window_function_display_name(params)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arg_types)
    }

    fn is_nullable(&self) -> bool {
        self.inner.inner().is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if is_ours(args.is_distinct, args.expr_fields) {
            return Ok(Box::new(One(DistinctTexts::default())));
        }
        self.inner.inner().accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_ours(args.is_distinct, args.input_fields) {
            return self.inner.inner().state_fields(args);
        }
        let field = |what: &str| Arc::new(Field::new(format!("{}[{what}]", args.name), DataType::LargeBinary, false));
        Ok(vec![field("ids"), field("texts")])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        is_ours(args.is_distinct, args.expr_fields) || self.inner.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if is_ours(args.is_distinct, args.expr_fields) {
            return Ok(Box::new(DistinctTexts::default()));
        }
        self.inner.inner().create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.inner().create_sliding_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.inner().reverse_expr()
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.inner().value_from_stats(args)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.inner().default_value(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

/// Mixes whole numbers whose bits are partly random already.
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

/// An id of the source in twelve bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id([u32; 3]);

impl Id {
    fn from_be_bytes(bytes: &[u8; ID_BYTES]) -> Self {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self([word(0), word(4), word(8)])
    }

    fn to_be_bytes(self) -> [u8; ID_BYTES] {
        let mut bytes = [0; ID_BYTES];
        for (part, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            part.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) << 32 | u64::from(self.0[2]));
        state.write_u32(self.0[1]);
    }
}

const ID_BYTES: usize = 12;

type Numbers<T> = HashSet<T, BuildHasherDefault<Mixed>>;

/// The distinct texts of one group.
#[derive(Debug, Default)]
struct Group {
    ids: Numbers<Id>,
    /// Numbers of other texts.
    texts: Numbers<u32>,
}

impl Group {
    /// Bytes of memory; a table keeps one byte beside each entry.
    fn size(&self) -> usize {
        self.ids.capacity() * (ID_BYTES + 1) + self.texts.capacity() * 5
    }

    fn count(&self) -> i64 {
        (self.ids.len() + self.texts.len()) as i64
    }
}

/// The distinct texts of all groups.
#[derive(Debug, Default)]
struct DistinctTexts {
    groups: Vec<Group>,
    /// Bytes of the tables of all groups.
    bytes_of_groups: usize,
    /// The numbers of texts that are no ids.
    numbers: HashMap<Box<str>, u32>,
    bytes_of_texts: usize,
}

impl DistinctTexts {
    fn resize(&mut self, groups: usize) {
        if groups > self.groups.len() {
            self.groups.resize_with(groups, Group::default);
        }
    }

    fn insert_id(&mut self, group: usize, id: Id) {
        let group = &mut self.groups[group];
        let before = group.ids.capacity();
        group.ids.insert(id);
        self.bytes_of_groups += (group.ids.capacity() - before) * (ID_BYTES + 1);
    }

    fn insert(&mut self, group: usize, text: &str) {
        if let Some(id) = packed(text) {
            return self.insert_id(group, id);
        }
        let number = self.numbers.get(text).copied().unwrap_or_else(|| {
            let next = self.numbers.len() as u32;
            self.numbers.insert(text.into(), next);
            self.bytes_of_texts += text.len();
            next
        });
        let group = &mut self.groups[group];
        let before = group.texts.capacity();
        group.texts.insert(number);
        self.bytes_of_groups += (group.texts.capacity() - before) * 5;
    }

    /// Takes the first groups out; those that stay are counted from 0 again.
    fn take(&mut self, emit_to: EmitTo) -> Vec<Group> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.bytes_of_groups -= taken.iter().map(Group::size).sum::<usize>();
        taken
    }
}

/// Packs an id of the source; none for any other text, and for ids in capitals, which are other texts.
fn packed(text: &str) -> Option<Id> {
    let bytes = text.as_bytes();
    if bytes.len() != 2 * ID_BYTES || bytes.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    ObjectId::from_hex(bytes).map(|id| Id::from_be_bytes(id.as_bytes()))
}

/// Calls for each text that is not NULL and not filtered out, with its row.
fn for_each_text(values: &[ArrayRef], filter: Option<&BooleanArray>, mut call: impl FnMut(usize, &str)) -> Result<()> {
    let [values] = values else { return Err(internal_datafusion_err!("count of more than one column")) };
    let keeps = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
    let mut each = |row: usize, text: Option<&str>| {
        if let Some(text) = text.filter(|_| keeps(row)) {
            call(row, text);
        }
    };
    match values.data_type() {
        DataType::Utf8View => values.as_string_view().iter().enumerate().for_each(|(row, text)| each(row, text)),
        DataType::Utf8 => values.as_string::<i32>().iter().enumerate().for_each(|(row, text)| each(row, text)),
        _ => {
            let values = cast(values, &DataType::LargeUtf8)?;
            values.as_string::<i64>().iter().enumerate().for_each(|(row, text)| each(row, text));
        }
    }
    Ok(())
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

impl GroupsAccumulator for DistinctTexts {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.resize(groups);
        for_each_text(values, filter, |row, text| self.insert(group_indices[row], text))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(self.take(emit_to).iter().map(|group| Some(group.count())).collect::<Int64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut by_number = vec![""; self.numbers.len()];
        self.numbers.iter().for_each(|(text, number)| by_number[*number as usize] = text);
        let groups = emit_to.take_needed(&mut self.groups);
        let (mut ids, mut texts) = (LargeBinaryBuilder::new(), LargeBinaryBuilder::new());
        let mut bytes = Vec::new();
        for group in groups {
            self.bytes_of_groups -= group.size();
            bytes.clear();
            group.ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_be_bytes()));
            ids.append_value(&bytes);
            bytes.clear();
            group.texts.iter().for_each(|number| push_text(&mut bytes, by_number[*number as usize]));
            texts.append_value(&bytes);
        }
        Ok(vec![Arc::new(ids.finish()), Arc::new(texts.finish())])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], groups: usize) -> Result<()> {
        let damaged = || internal_datafusion_err!("the state of a count is damaged");
        self.resize(groups);
        let [ids, texts] = values else { return Err(damaged()) };
        let (ids, texts) = (ids.as_binary::<i64>(), texts.as_binary::<i64>());
        for (row, group) in group_indices.iter().enumerate() {
            for id in ids.value(row).as_chunks::<ID_BYTES>().0 {
                self.insert_id(*group, Id::from_be_bytes(id));
            }
            let mut rest = texts.value(row);
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (text, next) = after.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
                self.insert(*group, std::str::from_utf8(text).map_err(|_| damaged())?);
                rest = next;
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, Array::len);
        let mut each: Vec<(Vec<u8>, Vec<u8>)> = vec![(Vec::new(), Vec::new()); rows];
        for_each_text(values, filter, |row, text| match packed(text) {
            Some(id) => each[row].0.extend_from_slice(&id.to_be_bytes()),
            None => push_text(&mut each[row].1, text),
        })?;
        let (ids, texts): (Vec<Vec<u8>>, Vec<Vec<u8>>) = each.into_iter().unzip();
        Ok(vec![Arc::new(LargeBinaryArray::from_iter_values(ids)), Arc::new(LargeBinaryArray::from_iter_values(texts))])
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Group>()
            + self.bytes_of_groups
            + self.numbers.capacity() * 21
            + self.bytes_of_texts
    }
}

/// The same without groups.
#[derive(Debug)]
struct One(DistinctTexts);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, Array::len);
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0.groups.first().map_or(0, Group::count))))
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.resize(1);
        self.0.state(EmitTo::All)?.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, Array::len);
        self.0.merge_batch(states, &vec![0; rows], 1)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{LargeStringArray, RecordBatch, StringArray, StringViewArray};
    use datafusion::datasource::MemTable;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use proptest::prelude::*;

    use super::*;
    use crate::query::engine;

    fn texts() -> impl Strategy<Value = Option<String>> {
        prop_oneof![
            1 => Just(None),
            4 => (0..40_u32).prop_map(|number| Some(format!("{number:024x}"))),
            1 => (0..40_u32).prop_map(|number| Some(format!("{number:024X}"))),
            2 => "[a-cß]{0,3}".prop_map(Some),
        ]
    }

    fn column(texts: &[Option<String>], form: usize) -> ArrayRef {
        match form {
            0 => Arc::new(texts.iter().cloned().collect::<StringArray>()),
            1 => Arc::new(texts.iter().cloned().collect::<StringViewArray>()),
            _ => Arc::new(texts.iter().cloned().collect::<LargeStringArray>()),
        }
    }

    async fn answers(batches: Vec<Vec<RecordBatch>>, is_ours: bool, sql: &str) -> String {
        // Small batches, several partitions, and a skip of the first stage as soon as may be.
        let config = SessionConfig::new()
            .with_target_partitions(3)
            .with_batch_size(16)
            .set_usize("datafusion.execution.skip_partial_aggregation_probe_rows_threshold", 32)
            .set_str("datafusion.execution.skip_partial_aggregation_probe_ratio_threshold", "0.3");
        let context = SessionContext::new_with_config(config);
        if is_ours {
            let state = context.state_ref();
            engine::register(&mut state.write()).unwrap();
        }
        let table = MemTable::try_new(batches[0][0].schema(), batches).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
        arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn counts_equal_the_engines_own(
            rows in proptest::collection::vec((0..60_i64, texts()), 1..200),
            form in 0..3_usize,
        ) {
            let batch = |rows: &[(i64, Option<String>)]| {
                let groups: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>());
                let values: Vec<Option<String>> = rows.iter().map(|row| row.1.clone()).collect();
                RecordBatch::try_from_iter_with_nullable([("g", groups, true), ("x", column(&values, form), true)]).unwrap()
            };
            let batches: Vec<Vec<RecordBatch>> = rows.chunks(rows.len().div_ceil(2)).map(|part| vec![batch(part)]).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for sql in [
                "SELECT g, count(DISTINCT x) AS n, count(*) AS all_rows FROM t GROUP BY g ORDER BY g",
                "SELECT count(DISTINCT x) AS n, count(x) AS some, count(*) AS all_rows FROM t",
                "SELECT g, count(DISTINCT x) FILTER (WHERE g % 2 = 0) AS n, count(DISTINCT g) AS m FROM t GROUP BY g ORDER BY g",
                "SELECT DISTINCT count(DISTINCT x) AS n FROM t WHERE g < 0",
            ] {
                let ours = runtime.block_on(answers(batches.clone(), true, sql));
                let theirs = runtime.block_on(answers(batches.clone(), false, sql));
                prop_assert_eq!(ours, theirs, "{}", sql);
            }
        }
    }
}
