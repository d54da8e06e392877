//! Names by id: `user_name`, `team_name`, `queue_name`, `brand_name` and `tag_names`.
//!
//! A dictionary (the schedules of `business_seconds` are one too) is one small table read into memory once per session, before
//! the first plan that uses its function is optimized, however many plans there are. A table or a column `name` that does not
//! exist (a policy may drop it) is an empty dictionary: every name is NULL.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result as EngineResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use tokio::sync::OnceCell;

use crate::model::Stream;
use crate::query::functions::business::{self, BusinessSeconds, Known, Schedules};
use crate::query::functions::sample::is_text;

/// Function, table it reads, whether it takes a list.
const FUNCTIONS: [(&str, Stream, bool); 5] = [
    ("tag_names", Stream::Tags, true),
    ("user_name", Stream::Users, false),
    ("team_name", Stream::Teams, false),
    ("queue_name", Stream::Queues, false),
    ("brand_name", Stream::Brands, false),
];

/// The dictionaries of one session.
#[derive(Debug, Default)]
pub(in crate::query) struct Dictionaries {
    entries: [Arc<Dictionary>; FUNCTIONS.len()],
    schedules: Arc<Schedules>,
}

/// Names by id, unset until it is read.
#[derive(Debug, Default)]
struct Dictionary {
    names: OnceCell<HashMap<String, String>>,
}

impl Dictionaries {
    /// Makes the functions that read from these dictionaries.
    pub(super) fn functions(&self) -> Vec<ScalarUDF> {
        let schedules = ScalarUDF::new_from_impl(BusinessSeconds::new(Arc::clone(&self.schedules)));
        FUNCTIONS
            .into_iter()
            .zip(&self.entries)
            .map(|((name, _, takes_list), dictionary)| {
                ScalarUDF::new_from_impl(NameFunction {
                    name,
                    takes_list,
                    signature: Signature::user_defined(Volatility::Stable),
                    dictionary: Arc::clone(dictionary),
                })
            })
            .chain([schedules])
            .collect()
    }

    /// Reads the dictionaries that a plan uses and that are not yet read.
    pub(in crate::query) async fn load_for(&self, plan: &LogicalPlan, state: &SessionState) -> EngineResult<()> {
        let used = used_functions(plan)?;
        for ((name, stream, _), dictionary) in FUNCTIONS.into_iter().zip(&self.entries) {
            if used.contains(name) {
                dictionary.names.get_or_try_init(|| read(stream, state)).await?;
            }
        }
        if used.contains(business::NAME) {
            self.schedules.read.get_or_try_init(|| read_schedules(state)).await?;
        }
        Ok(())
    }
}

fn used_functions(plan: &LogicalPlan) -> EngineResult<BTreeSet<String>> {
    let mut used = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarFunction(call) = part {
                    used.insert(call.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(used)
}

async fn read(stream: Stream, state: &SessionState) -> EngineResult<HashMap<String, String>> {
    let mut names = HashMap::new();
    for batch in rows(stream, &[stream.key_column(), "name"], state).await? {
        if batch.num_columns() == 2 {
            insert(&mut names, &batch)?;
        }
    }
    Ok(names)
}

async fn read_schedules(state: &SessionState) -> EngineResult<Known> {
    Known::of(&rows(Stream::Schedules, &business::COLUMNS, state).await?)
}

/// Reads a table whole: those of the columns that it has, in the order given.
async fn rows(stream: Stream, columns: &[&str], state: &SessionState) -> EngineResult<Vec<RecordBatch>> {
    let schema = state.schema_for_ref(stream.table())?;
    let Some(table) = schema.table(stream.table()).await? else { return Ok(Vec::new()) };
    let known = table.schema();
    let projection = columns.iter().filter_map(|column| known.index_of(column).ok()).collect();
    let scan = table.scan(state, Some(&projection), &[], None).await?;
    datafusion::physical_plan::collect(scan, state.task_ctx()).await
}

fn insert(names: &mut HashMap<String, String>, batch: &RecordBatch) -> EngineResult<()> {
    let ids = cast(batch.column(0), &DataType::Utf8)?;
    let texts = cast(batch.column(1), &DataType::Utf8)?;
    for (id, name) in ids.as_string::<i32>().iter().zip(texts.as_string::<i32>().iter()) {
        if let (Some(id), Some(name)) = (id, name) {
            names.insert(id.to_owned(), name.to_owned());
        }
    }
    Ok(())
}

struct NameFunction {
    name: &'static str,
    takes_list: bool,
    signature: Signature,
    dictionary: Arc<Dictionary>,
}

impl PartialEq for NameFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.dictionary, &other.dictionary)
    }
}

impl Eq for NameFunction {}

impl Hash for NameFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for NameFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NameFunction").field(&self.name).finish()
    }
}

fn text_list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

impl ScalarUDFImpl for NameFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> EngineResult<DataType> {
        Ok(if self.takes_list { text_list() } else { DataType::Utf8 })
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> EngineResult<Vec<DataType>> {
        let wanted = if self.takes_list { "a list of ids" } else { "one id" };
        let [kind] = arg_types else {
            return plan_err!("{} takes {wanted}, not {} arguments", self.name, arg_types.len());
        };
        let fits = match kind {
            DataType::Null => true,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::FixedSizeList(item, _) => self.takes_list && is_text(item.data_type()),
            other => !self.takes_list && is_text(other),
        };
        if !fits {
            return plan_err!("{} takes {wanted}, not {kind}", self.name);
        }
        // Ids are read as they lie: a cast would copy every one of them.
        Ok(vec![match kind {
            DataType::LargeUtf8 | DataType::Utf8View => kind.clone(),
            _ => self.return_type(arg_types)?,
        }])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let [argument] = args.args.as_slice() else { return plan_err!("{} takes one argument", self.name) };
        let Some(names) = self.dictionary.names.get() else {
            return exec_err!("{} cannot be used in a default: names are read with the query", self.name);
        };
        let (ids, is_scalar) = match argument {
            ColumnarValue::Array(ids) => (Arc::clone(ids), false),
            ColumnarValue::Scalar(id) => (id.to_array()?, true),
        };
        let result: ArrayRef = if self.takes_list {
            let lists = cast(&ids, &text_list())?;
            let lists = lists.as_list::<i32>();
            let values = named(lists.values().as_string::<i32>(), names);
            let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
            Arc::new(ListArray::try_new(item, lists.offsets().clone(), Arc::new(values), lists.nulls().cloned())?)
        } else {
            Arc::new(match ids.data_type() {
                DataType::LargeUtf8 => named(ids.as_string::<i64>(), names),
                DataType::Utf8View => named(ids.as_string_view(), names),
                _ => named(cast(&ids, &DataType::Utf8)?.as_string::<i32>(), names),
            })
        };
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn named<'a>(ids: impl IntoIterator<Item = Option<&'a str>>, names: &HashMap<String, String>) -> StringArray {
    ids.into_iter().map(|id| id.and_then(|id| names.get(id)).map(String::as_str)).collect()
}
