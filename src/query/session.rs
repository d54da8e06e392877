//! A session: one version of the lake as SQL tables, read only, in bounded memory, at one instant.
//!
//! `now()` is the time of the session's clock when it was opened, in every query and default of the session. Sorts,
//! groups and merges that need more memory than allowed go to disk encrypted (`query/spill.rs`).

mod batches;
mod bind;
mod freshness;
mod recorded;
mod statement;
mod survey;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::temporal_conversions::timestamp_ns_to_datetime;
use datafusion::catalog::TableProvider;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::{ExecutionProps, SQLOptions, SessionConfig};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, PeakRecordingPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::manifest::{Manifest, Watermark};
use crate::model::Stream;
use crate::query::describe::Asked;
use crate::query::engine;
use crate::query::fault::{self, Fault, Place};
use crate::query::functions::{self, Dictionaries};
use crate::query::library::QueryFile;
use crate::query::parameters::Arguments;
use crate::query::progress::Gauge;
use crate::query::spill::EncryptedSpill;
use bind::Values;

pub(super) use bind::sql_type;
pub(super) use freshness::words;

/// What a session may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySettings {
    /// Memory that the operators of all queries of the session hold together, bytes. Sorts and groups that need more
    /// spill; hash joins and distinct counts that need more fail. The process takes some 190 MiB beside it: the program,
    /// buffers of the files that are read, what was freed and is not given back. So the default, 320 MiB, keeps it under
    /// 512 MiB on a lake of 3 million tickets, which is enough there for two distinct counts of ids. More spills less.
    pub memory_bytes: usize,
    /// Bytes on disk of all that is spilled at a time, encrypted; default 16 GiB, 0 for never.
    pub spill_bytes: u64,
    /// Folder of what is spilled; by default the system's folder for temporary files.
    pub temp: Option<PathBuf>,
    /// How many parts of a plan run side by side; default the number of cores. More need more memory.
    pub partitions: usize,
    /// Rows per batch; default 8,192, the engine's own. More cost memory, fewer cost time.
    pub batch_rows: usize,
}

impl Default for QuerySettings {
    fn default() -> Self {
        let partitions = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { memory_bytes: 320 << 20, spill_bytes: 16 << 30, temp: None, partitions, batch_rows: 8_192 }
    }
}

/// Tables, functions and limits that queries run with.
#[derive(Debug)]
pub struct Session {
    state: SessionState,
    tables: Vec<String>,
    hidden: Vec<String>,
    dictionaries: Dictionaries,
    watermarks: BTreeMap<Stream, Watermark>,
    now: Timestamp,
    memory_bytes: usize,
}

/// A query that was found right: its parameters are bound, its tables exist, the lake is fresh enough.
#[derive(Debug, Clone)]
pub struct Plan {
    logical: LogicalPlan,
    schema: SchemaRef,
    path: String,
    sql: String,
}

impl Plan {
    /// Returns the columns of the result.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Tells whether the result is a ticket list: its first column is `ticket_id`.
    #[must_use]
    pub fn is_ticket_list(&self) -> bool {
        is_ticket_list(&self.schema)
    }

    /// Tells of each column of the result, by position, whether it may hold what only the second key opens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) when the plan cannot be walked.
    pub fn restricted_columns(&self) -> Result<Vec<bool>> {
        super::sink::restricted_columns(&self.logical)
            .map_err(|cause| Error::internal("failed to find the restricted columns of a plan").with_source(cause))
    }

    /// Tells whether the rows have an order: sorting is the last step of the plan, or the last but a limit or a selection.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        let mut node = &self.logical;
        loop {
            node = match node {
                LogicalPlan::Sort(_) => return true,
                LogicalPlan::Projection(projection) => &projection.input,
                LogicalPlan::Limit(limit) => &limit.input,
                LogicalPlan::SubqueryAlias(alias) => &alias.input,
                _ => return false,
            };
        }
    }
}

/// The rows of a running query, batch by batch.
pub struct Rows {
    stream: SendableRecordBatchStream,
    path: String,
    gauge: Option<Gauge>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Rows {
    /// Makes rows of a stream; `path` is what errors call the query.
    #[must_use]
    pub fn new(stream: SendableRecordBatchStream, path: impl Into<String>) -> Self {
        Self { stream, path: path.into(), gauge: None }
    }

    /// Returns the columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// Returns a view of the query's work that outlives the rows; none for rows that no session made.
    #[must_use]
    pub fn gauge(&self) -> Option<Gauge> {
        self.gauge.clone()
    }

    /// Returns the path of the SQL file, for errors.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the next batch, or none at the end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Query`](crate::error::ErrorKind::Query) when the query fails, memory included; the kind of the scan's own
    /// error when reading fails.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        // A stream that always has a batch ready would never let its task look at anything else, such as a signal.
        tokio::task::yield_now().await;
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(batch)) => Ok(Some(batch)),
            Some(Err(error)) => Err(Fault::from_engine(&error, Place { sql: "", tables: &[] }).into_error(&self.path)),
        }
    }

    /// Returns the engine's stream.
    #[must_use]
    pub fn into_inner(self) -> SendableRecordBatchStream {
        self.stream
    }
}

impl Session {
    /// Opens a session on one version of the lake.
    ///
    /// # Errors
    ///
    /// The lake's own when a table cannot be described.
    pub fn open(lake: &Lake, manifest: &Arc<Manifest>, settings: &QuerySettings, clock: &SharedClock) -> Result<Self> {
        let mut tables = Vec::new();
        for name in Lake::table_names(manifest) {
            let table = lake.table(manifest, &name)?;
            tables.push((name, table));
        }
        let mut session = Self::with_tables(tables, settings, clock)?;
        session.watermarks.clone_from(&manifest.watermarks);
        session.hidden = lake.hidden_columns(manifest);
        Ok(session)
    }

    /// Makes a session on tables that need no lake; `max_age` finds no watermark there and refuses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when two tables share a name,
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) when the engine cannot be set up.
    pub fn with_tables(
        tables: Vec<(String, Arc<dyn TableProvider>)>,
        settings: &QuerySettings,
        clock: &SharedClock,
    ) -> Result<Self> {
        let broken = |cause: DataFusionError| Error::internal("failed to set up the query engine").with_source(cause);
        let now = clock.now();
        let mut state = new_state(settings, now).map_err(broken)?;
        engine::register(&mut state)?;
        let dictionaries = functions::register(&mut state)?;
        let mut names = Vec::with_capacity(tables.len());
        for (name, table) in tables {
            let schema = state.schema_for_ref(name.as_str()).map_err(broken)?;
            schema
                .register_table(name.clone(), table)
                .map_err(|cause| Error::config(format!("two tables are called `{name}`")).with_source(cause))?;
            names.push(name);
        }
        names.sort();
        Ok(Self {
            state,
            tables: names,
            hidden: Vec::new(),
            dictionaries,
            watermarks: BTreeMap::new(),
            now,
            memory_bytes: settings.memory_bytes,
        })
    }

    /// Says how far the streams are complete, for `max_age`.
    #[must_use]
    pub fn with_watermarks(mut self, watermarks: BTreeMap<Stream, Watermark>) -> Self {
        self.watermarks = watermarks;
        self
    }

    /// Returns what `now()` is in every query of the session.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Says which columns read NULL for lack of a key, as `table.column`.
    #[cfg(test)]
    pub(super) fn hide(&mut self, columns: Vec<String>) {
        self.hidden = columns;
    }

    /// Returns the names of the tables, sorted.
    #[must_use]
    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    /// Returns the most bytes that the session's queries had reserved of their memory at one time.
    #[must_use]
    pub fn peak_memory_bytes(&self) -> usize {
        let pool = &self.state.runtime_env().memory_pool;
        PeakRecordingPool::from_pool(pool.as_ref()).map_or(0, PeakRecordingPool::max_reserved)
    }

    /// Plans a file with its arguments.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Query`](crate::error::ErrorKind::Query) with file, line and column for SQL that is wrong or that does more than read,
    /// [`ErrorKind::Stale`](crate::error::ErrorKind::Stale) when the lake is older than the file's `max_age`.
    pub async fn plan(&self, file: &QueryFile, arguments: &Arguments) -> Result<Plan> {
        let (logical, values) =
            self.plan_read(file, arguments).await.map_err(|faults| first(faults).into_error(&file.path))?;
        self.guard_freshness(file, &values, &logical)?;
        let schema = Arc::clone(logical.schema().inner());
        Ok(Plan { logical, schema, path: file.path.clone(), sql: file.sql.clone() })
    }

    /// Starts a plan and returns its rows.
    ///
    /// # Errors
    ///
    /// As [`Rows::next`].
    pub async fn stream(&self, plan: &Plan) -> Result<Rows> {
        let failed = |error: DataFusionError| {
            Fault::from_engine(&error, Place { sql: &plan.sql, tables: &self.tables }).into_error(&plan.path)
        };
        let mut physical = self.state.create_physical_plan(&plan.logical).await.map_err(failed)?;
        let mut context = self.state.task_ctx();
        let rows = self.state.config().batch_size();
        let fitting = batches::rows_for(&physical, rows, self.memory_bytes);
        if fitting < rows {
            let mut state = self.state.clone();
            *state.config_mut() = state.config().clone().with_batch_size(fitting);
            physical = state.create_physical_plan(&plan.logical).await.map_err(failed)?;
            context = state.task_ctx();
        }
        let gauge = Gauge::new(Arc::clone(&physical));
        let stream = execute_stream(physical, context).map_err(failed)?;
        let schema = stream.schema();
        let counted = gauge.clone();
        let batches = stream.inspect(move |batch| batch.iter().for_each(|batch| counted.add_rows(batch.num_rows())));
        let stream = Box::pin(RecordBatchStreamAdapter::new(schema, batches));
        Ok(Rows { stream, path: plan.path.clone(), gauge: Some(gauge) })
    }

    /// Returns the columns of a file's result, for which no parameter needs a value and the lake may be old.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Query`](crate::error::ErrorKind::Query) as [`plan`](Self::plan).
    pub async fn columns(&self, file: &QueryFile) -> Result<SchemaRef> {
        self.dry_plan(file).await.map_err(|faults| first(faults).into_error(&file.path))
    }

    /// Plans a file up to its optimized form with the defaults, and NULL where there is none, without its guards.
    ///
    /// Returns the columns of its result.
    pub(super) async fn dry_plan(&self, file: &QueryFile) -> Result<SchemaRef, Vec<Fault>> {
        let arguments =
            Arguments::nulls(file).map_err(|error| vec![Fault::new(error.to_string()).with_kind(error.kind())])?;
        let (logical, _) = self.plan_read(file, &arguments).await?;
        self.state.optimize(&logical).map_err(|error| vec![self.fault(file, &error)])?;
        Ok(Arc::clone(logical.schema().inner()))
    }

    async fn plan_read(&self, file: &QueryFile, arguments: &Arguments) -> Result<(LogicalPlan, Values), Vec<Fault>> {
        let fail = |error: DataFusionError| vec![self.fault(file, &error)];
        let statement = statement::parse(&file.sql).map_err(|error| match error {
            statement::Refusal::Engine(error) => fail(error),
            statement::Refusal::Fault(fault) => vec![fault],
        })?;
        let asked = Asked::of(&statement);
        let logical = self.state.statement_to_plan(statement).await.map_err(fail)?;
        // The syntax was checked already; this holds even if a new kind of statement slips through it.
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&logical)
            .map_err(fail)?;
        let logical = match asked {
            None => logical,
            Some(asked) => asked.answer(logical, &self.state, &self.tables, &self.hidden).await.map_err(fail)?,
        };
        let values = self.bind(file, arguments, &logical)?;
        let bound: HashMap<String, ScalarValue> = values.clone().into_iter().collect();
        let logical = logical.with_param_values(ParamValues::from(bound)).map_err(fail)?;
        self.dictionaries.load_for(&logical, &self.state).await.map_err(fail)?;
        Ok((logical, values))
    }

    fn no_table(&self, file: &QueryFile, table: &str) -> Fault {
        fault::no_table(table, Place { sql: &file.sql, tables: &self.tables })
    }

    fn fault(&self, file: &QueryFile, error: &DataFusionError) -> Fault {
        Fault::from_engine(error, Place { sql: &file.sql, tables: &self.tables })
    }
}

/// Tells whether rows of these columns are a ticket list.
pub(super) fn is_ticket_list(schema: &SchemaRef) -> bool {
    schema.fields().first().is_some_and(|field| field.name() == Stream::Tickets.key_column())
}

/// Returns the first of what is wrong: one error ends a run.
fn first(faults: Vec<Fault>) -> Fault {
    faults.into_iter().next().unwrap_or_else(|| Fault::new("the query is wrong"))
}

fn new_state(settings: &QuerySettings, now: Timestamp) -> Result<SessionState, DataFusionError> {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(settings.partitions.max(1))
        .with_batch_size(settings.batch_rows.max(1));
    let options = config.options_mut();
    // Positions for errors; `now()` in UTC as the columns are; text columns of casts as the lake's own.
    options.sql_parser.collect_spans = true;
    options.optimizer.enable_window_topn = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.time_zone = Some("UTC".to_owned());
    // What a sort keeps back for merging what it spilled; the engine's own 10 MB would be all of a small memory.
    options.execution.sort_spill_reservation_bytes =
        options.execution.sort_spill_reservation_bytes.min(settings.memory_bytes / 8);
    let spill = if settings.spill_bytes == 0 {
        DiskManagerMode::Disabled
    } else {
        let folder = settings.temp.clone().unwrap_or_else(std::env::temp_dir);
        DiskManagerMode::Custom(Arc::new(EncryptedSpill::new(folder, settings.spill_bytes)))
    };
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(PeakRecordingPool::new(Arc::new(FairSpillPool::new(settings.memory_bytes)))))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(spill))
        .build_arc()?;
    let nanoseconds = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
    let mut properties = ExecutionProps::new();
    properties.query_execution_start_time = timestamp_ns_to_datetime(nanoseconds).map(|time| time.and_utc());
    Ok(SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_execution_props(properties)
        .build())
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use arrow::array::{Array, AsArray};
    use datafusion::datasource::MemTable;

    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::error::ErrorKind;
    use crate::query::sink::{self, Format, Layout};

    const NOW: &str = "2026-03-02T12:00:00Z";

    fn table(name: &str, columns: &[(&str, arrow::array::ArrayRef)]) -> (String, Arc<dyn TableProvider>) {
        let batch = RecordBatch::try_from_iter(columns.iter().map(|(name, array)| (*name, Arc::clone(array)))).unwrap();
        (name.to_owned(), Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()))
    }

    fn texts(values: &[Option<&str>]) -> arrow::array::ArrayRef {
        Arc::new(values.iter().collect::<arrow::array::StringArray>())
    }

    pub(in crate::query) fn tickets() -> (String, Arc<dyn TableProvider>) {
        let at = arrow::array::TimestampMillisecondArray::from(vec![1_772_000_000_000, 1_772_100_000_000, 0]);
        table(
            "tickets",
            &[
                ("ticket_id", texts(&[Some("t1"), Some("t2"), Some("t3")])),
                ("status", texts(&[Some("open"), Some("done"), None])),
                ("user_id", texts(&[Some("u1"), Some("u8"), None])),
                ("reopen_count", Arc::new(arrow::array::Int64Array::from(vec![3, 0, 1]))),
                ("updated_at", Arc::new(at.clone().with_timezone("UTC"))),
                ("offset_at", Arc::new(at.with_timezone("+00:00"))),
                ("view", Arc::new(arrow::array::StringViewArray::from(vec![Some("u1"), None, Some("u2")]))),
                (
                    "coded",
                    Arc::new(
                        [Some("u1"), None, Some("u1")]
                            .into_iter()
                            .collect::<arrow::array::DictionaryArray<arrow::datatypes::Int32Type>>(),
                    ),
                ),
            ],
        )
    }

    fn session(settings: &QuerySettings) -> (Session, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(NOW.parse().unwrap()));
        let users =
            table("users", &[("user_id", texts(&[Some("u1"), Some("u2")])), ("name", texts(&[Some("Ada"), None]))]);
        let tags = table("tags", &[("tag_id", texts(&[Some("g1")])), ("name", texts(&[Some("refund")]))]);
        let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
        (Session::with_tables(vec![tickets(), users, tags], settings, &shared).unwrap(), clock)
    }

    async fn run_with(sql: &str, given: &[(&str, &str)], settings: &QuerySettings) -> Result<String> {
        let (session, _) = session(settings);
        let file = QueryFile::parse("q.sql", sql)?;
        let given: Vec<_> = given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let plan = session.plan(&file, &Arguments::parse(&file, &given)?).await?;
        let mut out = Vec::new();
        sink::write(session.stream(&plan).await?, Format::Csv, &Layout::default(), &mut out).await?;
        let text = String::from_utf8(out).unwrap();
        Ok(text.split_once('\n').unwrap().1.to_owned())
    }

    async fn run(sql: &str, given: &[(&str, &str)]) -> Result<String> {
        run_with(sql, given, &QuerySettings { partitions: 2, ..QuerySettings::default() }).await
    }

    #[tokio::test]
    async fn parameters_are_values_and_never_sql() {
        let sql = "-- param status: text\nSELECT ticket_id FROM tickets WHERE status = $status";
        assert_eq!(run(sql, &[("status", "open")]).await.unwrap(), "t1\n");
        for text in ["open' OR '1'='1", "$status", "x'; DROP TABLE tickets; --", "status", "NULL"] {
            assert_eq!(run(sql, &[("status", text)]).await.unwrap(), "", "{text}");
        }
        let echo = "-- param x: text\nSELECT $x AS x";
        assert_eq!(run(echo, &[("x", "a' || 'b")]).await.unwrap(), "a' || 'b\n");
    }

    #[tokio::test]
    async fn every_type_of_parameter_works_in_a_query() {
        let at = "-- param at: timestamp = now() - interval '7 days'\nSELECT ticket_id FROM tickets WHERE updated_at >= $at ORDER BY 1";
        assert_eq!(run(at, &[]).await.unwrap(), "t1\nt2\n");
        assert_eq!(run(at, &[("at", "2026-02-26T00:00:00Z")]).await.unwrap(), "t2\n");
        for (sql, expected) in [
            ("-- param at: timestamp = now()\nSELECT count(*) FROM tickets WHERE offset_at < $at", "3\n"),
            ("-- param id: text = 'u1'\nSELECT ticket_id FROM tickets WHERE view = $id", "t1\n"),
            ("-- param id: text = 'u1'\nSELECT ticket_id FROM tickets WHERE coded = $id ORDER BY 1", "t1\nt3\n"),
            (
                "-- param id: text = 'u1'\nSELECT user_name(view), user_name(coded), sample_key(1, coded) = sample_key(1, $id) FROM tickets LIMIT 1",
                "Ada,Ada,true\n",
            ),
            ("-- param d: date = current_date()\nSELECT $d", "2026-03-02\n"),
            (
                "-- param i: interval = interval '7 days'\nSELECT count(*) FROM tickets WHERE updated_at > now() - $i",
                "2\n",
            ),
            ("-- param l: text[] = ['open', 'x']\nSELECT ticket_id FROM tickets WHERE array_has($l, status)", "t1\n"),
            ("-- param l: int[] = [3]\nSELECT ticket_id FROM tickets WHERE array_has($l, reopen_count)", "t1\n"),
            ("-- param n: int = 1\nSELECT ticket_id FROM tickets ORDER BY reopen_count LIMIT $n", "t2\n"),
            (
                "-- param b: bool = true\n-- param x: double = 1\nSELECT ticket_id FROM tickets WHERE (reopen_count > $x) = $b",
                "t1\n",
            ),
        ] {
            assert_eq!(run(sql, &[]).await.unwrap(), expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn now_is_the_sessions_clock_in_queries_and_defaults() {
        let sql = "-- param at: timestamp = now()\nSELECT now() AS a, $at AS b, current_date() AS c";
        let expected = "2026-03-02T12:00:00.000Z,2026-03-02T12:00:00.000Z,2026-03-02\n";
        assert_eq!(run(sql, &[]).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn statements_that_do_more_than_read_are_refused_by_name() {
        for (sql, name) in [
            ("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '/tmp/x'", "CREATE EXTERNAL TABLE"),
            ("COPY tickets TO '/tmp/x.parquet'", "COPY"),
            ("COPY (SELECT 1) TO '/tmp/x.csv'", "COPY"),
            ("SET datafusion.execution.batch_size = 1", "SET"),
            ("INSERT INTO tickets VALUES ('x')", "INSERT INTO"),
            ("WITH x AS (SELECT 1) INSERT INTO tickets SELECT * FROM x", "INSERT INTO"),
            ("DELETE FROM tickets", "DELETE FROM"),
            ("UPDATE tickets SET status = 'x'", "UPDATE"),
            ("DROP TABLE tickets", "DROP TABLE"),
            ("CREATE TABLE x AS SELECT 1", "CREATE TABLE"),
            ("CREATE VIEW x AS SELECT 1", "CREATE VIEW"),
            ("SELECT 1 AS a INTO x", "SELECT INTO"),
            ("EXPLAIN DELETE FROM tickets", "DELETE FROM"),
            ("EXPLAIN ANALYZE INSERT INTO tickets VALUES ('x')", "INSERT INTO"),
            ("SELECT 1; DROP TABLE tickets", "DROP TABLE"),
            ("TRUNCATE TABLE tickets", "TRUNCATE"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("BEGIN", "BEGIN"),
            ("RESET datafusion.execution.batch_size", "RESET"),
        ] {
            let error = run(sql, &[]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Query, "{sql}: {error:?}");
            assert!(error.message().contains(&format!("the statement {name}")), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn reading_statements_run() {
        for sql in [
            "SELECT 1",
            "WITH x AS (SELECT 1 AS a) SELECT a FROM x;",
            "EXPLAIN SELECT ticket_id FROM tickets",
            "DESCRIBE tickets",
            "SHOW COLUMNS FROM tickets",
            "SHOW TABLES",
        ] {
            let rows = run(sql, &[]).await;
            assert!(rows.as_ref().is_ok_and(|rows| !rows.is_empty()), "{sql}: {rows:?}");
        }
    }

    #[tokio::test]
    async fn files_are_no_tables_and_two_statements_are_refused() {
        for (sql, message) in [
            ("SELECT * FROM '/etc/passwd'", "no table"),
            ("SELECT * FROM 'https://example.com/a.parquet'", "no table"),
            ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
            ("SELECT 1; SELECT 2", "2 statements"),
            ("", "no statement"),
        ] {
            let error = run(sql, &[]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Query, "{sql}");
            assert!(error.message().contains(message), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn more_memory_than_allowed_is_refused_where_spilling_is_off() {
        let settings =
            QuerySettings { memory_bytes: 1 << 20, spill_bytes: 0, partitions: 1, ..QuerySettings::default() };
        for sql in [
            "SELECT value, sample_key('s', CAST(value AS varchar)) AS k FROM generate_series(1, 300000) ORDER BY k",
            "SELECT CAST(value AS varchar) AS v, count(*) FROM generate_series(1, 300000) GROUP BY v",
        ] {
            let error = run_with(sql, &[], &settings).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Query);
            assert!(error.message().contains("needs more memory than query.memory"), "{error:?}");
            assert!(error.hint().unwrap().contains("raise query.memory"));
        }
        let streamed = "SELECT max(value) FROM generate_series(1, 300000)";
        assert_eq!(run_with(streamed, &[], &settings).await.unwrap(), "300000\n");
    }

    #[tokio::test]
    async fn sorts_and_groups_beyond_the_memory_answer_as_with_plenty() {
        let plenty = QuerySettings { partitions: 2, ..QuerySettings::default() };
        let little = QuerySettings { memory_bytes: 12 << 20, ..plenty.clone() };
        for sql in [
            "SELECT value, sample_key('s', CAST(value AS varchar)) AS k FROM generate_series(1, 400000) ORDER BY k",
            "SELECT v, n FROM (SELECT CAST(value % 250000 AS varchar) AS v, count(*) AS n FROM generate_series(1, 400000) GROUP BY v) ORDER BY v",
        ] {
            let off = QuerySettings { spill_bytes: 0, ..little.clone() };
            assert!(run_with(sql, &[], &off).await.is_err(), "it does not fit: {sql}");
            assert!(run_with(sql, &[], &little).await.unwrap() == run_with(sql, &[], &plenty).await.unwrap(), "{sql}");
        }
        let bounded = QuerySettings { spill_bytes: 1 << 20, ..little };
        let sql =
            "SELECT value, sample_key('s', CAST(value AS varchar)) AS k FROM generate_series(1, 400000) ORDER BY k";
        let error = run_with(sql, &[], &bounded).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Query);
        assert!(error.message().contains("query.spill"), "{error:?}");
    }

    #[tokio::test]
    async fn names_come_from_the_tables_and_are_null_where_unknown() {
        for (sql, expected) in [
            ("SELECT user_name(user_id) FROM tickets ORDER BY ticket_id", "Ada\n\"\"\n\"\"\n"),
            ("SELECT user_name('u1'), user_name('u2'), user_name(NULL)", "Ada,,\n"),
            ("SELECT team_name('x') AS t, queue_name('x'), brand_name('x')", ",,\n"),
            ("SELECT tag_names(['g1', 'g9', NULL]) AS t", "\"[\"\"refund\"\",null,null]\"\n"),
            ("SELECT tag_names([]) AS t, tag_names(NULL) AS u", "[],\n"),
            ("SELECT ticket_id FROM tickets WHERE user_name(user_id) = 'Ada'", "t1\n"),
            (
                "SELECT ticket_id FROM tickets WHERE user_id IN (SELECT user_id FROM users WHERE user_name(user_id) = 'Ada')",
                "t1\n",
            ),
        ] {
            assert_eq!(run(sql, &[]).await.unwrap(), expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn sample_key_takes_integers_and_texts_as_the_same_seed() {
        let sql = "SELECT sample_key(7, ticket_id) = sample_key('7', ticket_id), sample_key(NULL, ticket_id), sample_key(7, NULL)
            FROM tickets LIMIT 1";
        assert_eq!(run(sql, &[]).await.unwrap(), "true,,\n");
        let bound = "-- param seed: int = 7\nSELECT count(*) FROM tickets WHERE sample_key($seed, ticket_id) = sample_key('7', ticket_id)";
        assert_eq!(run(bound, &[]).await.unwrap(), "3\n");
        let error = run("SELECT sample_key(0.5, ticket_id) FROM tickets", &[]).await.unwrap_err();
        assert!(error.message().contains("sample_key takes an integer or a text as seed"), "{error}");
    }

    #[tokio::test]
    async fn max_age_refuses_an_older_lake_and_says_how_old() {
        let (session, clock) = session(&QuerySettings::default());
        let now_ms = clock.now().as_millisecond();
        let with = |session: Session, stream: Stream, minutes_ago: i64| {
            let mut watermarks = session.watermarks.clone();
            let complete_through_ms = Some(now_ms - minutes_ago * 60_000);
            watermarks.insert(stream, Watermark { complete_through_ms, ..Watermark::default() });
            session.with_watermarks(watermarks)
        };
        let file = QueryFile::parse("q.sql", "-- max_age: 2h\nSELECT ticket_id FROM tickets").unwrap();
        assert_eq!(file.max_age, Some(Duration::from_hours(2)));
        let error = session.plan(&file, &Arguments::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Stale, Some("run `counterfoil extract` first")));

        let session = with(session, Stream::Tickets, 120);
        assert!(session.plan(&file, &Arguments::default()).await.is_ok());
        let session = with(session, Stream::Tickets, 27 * 60 + 5);
        let error = session.plan(&file, &Arguments::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
        assert_eq!(error.message(), "tickets are complete only up to 1d 3h ago, but q allows 2h");
        let unguarded = QueryFile::inline("SELECT ticket_id FROM tickets").unwrap();
        assert!(session.plan(&unguarded, &Arguments::default()).await.is_ok());
    }

    #[tokio::test]
    async fn complete_through_refuses_a_lake_that_is_short_of_its_instant_and_says_how_far() {
        let header =
            "-- param until: timestamp = date_trunc('day', now())\n-- complete_through: $until -- whole days\n";
        let sql = format!("{header}SELECT ticket_id FROM tickets WHERE updated_at < $until");
        let file = QueryFile::parse("q.sql", &sql).unwrap();
        let at = |text: &str| {
            let complete_through_ms = Some(text.parse::<Timestamp>().unwrap().as_millisecond());
            let watermark = Watermark { complete_through_ms, ..Watermark::default() };
            session(&QuerySettings::default()).0.with_watermarks(BTreeMap::from([(Stream::Tickets, watermark)]))
        };
        let given = |until: &str| Arguments::parse(&file, &[("until".to_owned(), until.to_owned())]).unwrap();
        let whole = at("2026-03-02T00:00:00Z");
        assert!(whole.plan(&file, &Arguments::default()).await.is_ok(), "the boundary itself is enough");
        let short = at("2026-03-01T22:30:00Z");
        let error = short.plan(&file, &Arguments::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
        assert_eq!(
            error.message(),
            "tickets are complete only through 2026-03-01T22:30:00Z, 1h 30m short of the 2026-03-02T00:00:00Z \
             that q asks for (complete_through: $until)"
        );
        assert_eq!(
            error.hint(),
            Some("run `counterfoil extract` first, or ask for less: -p until=2026-03-01T22:30:00Z")
        );
        assert!(short.plan(&file, &given("2026-03-01T22:30:00Z")).await.is_ok());
        let error = whole.plan(&file, &given("2026-03-05")).await.unwrap_err();
        assert_eq!(error.hint(), Some("that time has not come yet: choose an earlier one"));

        let (nothing, _) = session(&QuerySettings::default());
        let error = nothing.plan(&file, &Arguments::default()).await.unwrap_err();
        assert!(error.message().starts_with("tickets have not been extracted completely yet"), "{error}");
        let both = QueryFile::parse("q.sql", &format!("-- max_age: 2h\n{sql}")).unwrap();
        let error = whole.plan(&both, &Arguments::default()).await.unwrap_err();
        assert!(error.message().contains("but q allows 2h"), "{error}");
        let customers = QueryFile::parse("q.sql", &format!("{header}SELECT user_id FROM users WHERE $until < now()"));
        let error = short.plan(&customers.unwrap(), &Arguments::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "a table that every run reads whole follows the tickets");
    }

    #[tokio::test]
    async fn complete_through_that_gives_no_instant_is_refused() {
        for (expression, message) in [
            ("5", "q.sql:1: complete_through is no instant: `5`"),
            ("NULL", "q.sql:1: complete_through is NULL: `NULL`"),
            ("$until", "q.sql:1: complete_through is wrong: parameter `$until` is not declared"),
            ("updated_at", "q.sql:1: complete_through is wrong: no column `updated_at`"),
            ("now(", "q.sql:1: complete_through is wrong: not valid SQL"),
            ("sample_key(1, random()::text)", "q.sql:1: complete_through is wrong: it is not a constant"),
        ] {
            let sql = format!("-- complete_through: {expression}\nSELECT ticket_id FROM tickets");
            let error = run(&sql, &[]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Query, "{expression}");
            assert!(error.message().starts_with(message), "{expression}: {error}");
        }
    }

    #[tokio::test]
    async fn defaults_may_use_the_parameters_above_them() {
        let sql = "-- param since: date = '2026-01-31'
-- param until: timestamp = $since + interval '7 days'
-- param days: int[] = [1, 2]
SELECT $until AS until, $days AS days";
        assert_eq!(run(sql, &[]).await.unwrap(), "2026-02-07T00:00:00.000Z,\"[1,2]\"\n");
        assert_eq!(run(sql, &[("since", "2026-03-01")]).await.unwrap(), "2026-03-08T00:00:00.000Z,\"[1,2]\"\n");
        let only_above = "-- param a: int = 2\n-- param b: int = $a * 2\nSELECT $b AS b";
        assert_eq!(run(only_above, &[]).await.unwrap(), "4\n", "used by a default is used");
    }

    #[tokio::test]
    async fn lists_of_every_type_work_in_a_query() {
        for (sql, expected) in [
            ("-- param l: double[] = [0.5, 1]\nSELECT array_length($l)", "2\n"),
            ("-- param l: bool[] = [true]\nSELECT array_has($l, true)", "true\n"),
            ("-- param l: date[] = ['2026-01-31']\nSELECT array_has($l, date '2026-01-31')", "true\n"),
            ("-- param l: timestamp[] = [now()]\nSELECT count(*) FROM tickets WHERE updated_at < $l[1]", "3\n"),
            ("-- param l: interval[] = [interval '1 day']\nSELECT now() - $l[1] AS t", "2026-03-01T12:00:00.000Z\n"),
            ("-- param l: text[] = []\nSELECT array_length($l)", "0\n"),
        ] {
            let result = run(sql, &[]).await.unwrap();
            assert_eq!(result.trim_matches(['\n', '"']), expected.trim_matches(['\n', '"']), "{sql}");
        }
    }

    #[tokio::test]
    async fn distinct_from_ends_where_its_operand_ends() {
        let table = "(VALUES (1, NULL, true), (2, false, true), (3, true, true), (4, NULL, false), (5, true, false)) AS t (n, a, b)";
        for (condition, expected) in [
            ("a IS DISTINCT FROM true AND b", "1\n2\n"),
            ("b AND a IS DISTINCT FROM true", "1\n2\n"),
            ("n > 0 AND a IS DISTINCT FROM true AND b AND n < 2", "1\n"),
            ("a IS NOT DISTINCT FROM true AND b", "3\n"),
            ("a IS DISTINCT FROM true AND b IS DISTINCT FROM true AND n > 0", "4\n"),
            ("n = 5 OR a IS DISTINCT FROM true AND b", "1\n2\n5\n"),
            ("(a IS DISTINCT FROM true AND b) OR n = 5", "1\n2\n5\n"),
            ("a IS DISTINCT FROM (true AND b) AND n < 3", "1\n2\n"),
            ("NOT (a IS DISTINCT FROM true) AND b", "3\n"),
            ("NOT b AND a IS DISTINCT FROM true", "4\n"),
        ] {
            let sql = format!("SELECT n FROM {table} WHERE {condition} ORDER BY n");
            assert_eq!(run(&sql, &[]).await.unwrap(), expected, "{condition}");
        }
        for condition in [
            "a IS DISTINCT FROM true OR b",
            "NOT a IS DISTINCT FROM true AND b",
            "b AND a IS DISTINCT FROM true AND b OR b",
        ] {
            let error = run(&format!("SELECT n FROM {table} WHERE {condition}"), &[]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Query, "{condition}");
            assert_eq!(error.message(), "q.sql: where `a IS DISTINCT FROM` ends is not clear", "{condition}");
            assert!(error.hint().unwrap().contains("parentheses"), "{condition}");
        }
        let inner =
            "SELECT (SELECT count(*) FROM tickets WHERE status IS DISTINCT FROM 'done' AND reopen_count > 2) AS n";
        assert_eq!(run(inner, &[]).await.unwrap(), "1\n", "in a subquery too");
    }

    #[tokio::test]
    async fn planning_can_move_between_threads() {
        let (session, _) = session(&QuerySettings::default());
        let planned = tokio::spawn(async move {
            let file = QueryFile::inline("SELECT user_name(user_id) AS agent FROM tickets").unwrap();
            session.plan(&file, &Arguments::default()).await.map(|plan| plan.schema().fields().len())
        });
        assert_eq!(planned.await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn result_tells_whether_it_is_a_ticket_list() {
        let (session, _) = session(&QuerySettings::default());
        for (sql, is_list) in
            [("SELECT ticket_id, status FROM tickets", true), ("SELECT status, ticket_id FROM tickets", false)]
        {
            let plan = session.plan(&QueryFile::inline(sql).unwrap(), &Arguments::default()).await.unwrap();
            assert_eq!(plan.is_ticket_list(), is_list);
        }
        let file = QueryFile::inline("SELECT ticket_id FROM tickets").unwrap();
        let plan = session.plan(&file, &Arguments::default()).await.unwrap();
        let mut rows = session.stream(&plan).await.unwrap();
        let batch = rows.next().await.unwrap().unwrap();
        assert_eq!(batch.column(0).as_string::<i32>().len(), 3);
    }
}
