//! One schema file: TOML text to declarations, or the first thing that is wrong with it.
//!
//! Every error names the file, the line, the declaration and the value, and offers the nearest word that would do.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result, did_you_mean};
use crate::model::Stream;
use crate::schema::{Argument, Class, Column, ColumnType, CustomRule, MethodText, Pattern, TableSchema};

const TOP_KEYS: [&str; 4] = ["stream", "column", "custom", "pattern"];
const COLUMN_KEYS: [&str; 7] = ["name", "path", "type", "unit", "class", "method", "description"];
const PATTERN_KEYS: [&str; 3] = ["name", "regex", "description"];
const CUSTOM_KEYS: [&str; 4] = ["pattern", "class", "method", "description"];

/// Reads one file.
pub(super) fn table(file: &str, text: &str) -> Result<TableSchema> {
    let source = Source { file, text };
    let top = DeTable::parse(text).map_err(|error| source.syntax(&error))?;
    let top = Declaration { source, table: top.get_ref(), line: 1, object: "file".to_owned() };
    top.known_keys(&TOP_KEYS)?;

    let (name, line) = top.required_text("stream")?;
    let stream = name.parse::<Stream>().map_err(|_| {
        source
            .wrong("unknown stream", line, "stream", name)
            .with_hint(did_you_mean(name, Stream::ALL.map(Stream::table)))
    })?;
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if stem != stream.table() {
        return Err(source
            .wrong("file is not named after its stream", line, "stream", name)
            .with_hint(format!("rename the file to `{stream}.toml`, or write `stream = \"{stem}\"`")));
    }

    let mut columns = Vec::new();
    for declaration in top.tables("column")? {
        columns.push(column(&declaration)?);
    }
    let mut custom: Vec<CustomRule> = Vec::new();
    for declaration in top.tables("custom")? {
        let rule = custom_rule(&declaration)?;
        if let Some(first) = custom.iter().find(|first| first.pattern == rule.pattern) {
            return Err(source
                .wrong("two rules have one pattern", rule.line, "pattern", &rule.pattern)
                .with_hint(format!("the first is on line {}: remove one of them", first.line)));
        }
        custom.push(rule);
    }
    let mut patterns: Vec<Pattern> = Vec::new();
    for declaration in top.tables("pattern")? {
        let own = pattern(&declaration)?;
        if let Some(first) = patterns.iter().find(|first| first.name == own.name) {
            return Err(source
                .wrong("two patterns have one name", own.line, "name", &own.name)
                .with_hint(format!("the first is on line {}: rename or remove one of them", first.line)));
        }
        patterns.push(own);
    }
    let table = TableSchema { stream, file: file.to_owned(), columns, custom, patterns };
    check_distinct(source, &table)?;
    check_keys(source, &table)?;
    Ok(table)
}

fn column(declaration: &Declaration<'_>) -> Result<Column> {
    declaration.known_keys(&COLUMN_KEYS)?;
    let source = declaration.source;
    let (name, line) = declaration.required_text("name")?;
    let is_name = name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_name {
        return Err(source
            .wrong("not a column name", line, "name", name)
            .with_hint("a name has lower-case letters, digits and `_`, starts with a letter and is at most 63 long"));
    }
    let declaration = &Declaration { object: format!("column `{name}`"), ..declaration.clone() };

    let (path_text, line) = declaration.required_text("path")?;
    let path: Vec<String> = path_text.split('.').map(str::to_owned).collect();
    if path.iter().any(|key| key.is_empty() || key.contains(char::is_whitespace)) {
        return Err(declaration
            .wrong("not a path", line, "path", path_text)
            .with_hint("a path is the keys from the record's root joined by dots, e.g. `attributes.queue.name`"));
    }
    let (type_name, line) = declaration.required_text("type")?;
    let column_type =
        ColumnType::ALL.into_iter().find(|column_type| column_type.name() == type_name).ok_or_else(|| {
            declaration
                .wrong("unknown type", line, "type", type_name)
                .with_hint(did_you_mean(type_name, ColumnType::ALL.map(ColumnType::name)))
        })?;
    let class = declaration.class()?;
    let method = declaration.method(class)?;
    let (description, line) = declaration.required_text("description")?;
    if description.trim().is_empty() {
        return Err(declaration.wrong("description is empty", line, "description", description));
    }
    Ok(Column {
        name: name.to_owned(),
        path,
        column_type,
        unit: declaration.text("unit")?.map(|(unit, _)| unit.to_owned()),
        class,
        method,
        description: description.to_owned(),
        line: declaration.line,
    })
}

fn custom_rule(declaration: &Declaration<'_>) -> Result<CustomRule> {
    declaration.known_keys(&CUSTOM_KEYS)?;
    let (pattern, line) = declaration.required_text("pattern")?;
    let declaration = &Declaration { object: format!("custom `{pattern}`"), ..declaration.clone() };
    let literal = pattern.strip_prefix('*').or_else(|| pattern.strip_suffix('*')).unwrap_or(pattern);
    if pattern.is_empty() || !literal.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        return Err(declaration
            .wrong("not a pattern", line, "pattern", pattern)
            .with_hint("write an attribute's name (`tierStr`), or one `*` at the start or the end (`*Num`)"));
    }
    let class = declaration.class()?;
    Ok(CustomRule {
        pattern: pattern.to_owned(),
        class,
        method: declaration.method(class)?,
        description: declaration.text("description")?.map(|(text, _)| text.to_owned()),
        line: declaration.line,
    })
}

fn pattern(declaration: &Declaration<'_>) -> Result<Pattern> {
    declaration.known_keys(&PATTERN_KEYS)?;
    let (name, line) = declaration.required_text("name")?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(declaration
            .wrong("not a pattern's name", line, "name", name)
            .with_hint("a name has letters, digits and `-`: it is stored as `[name]` in place of what matches"));
    }
    let declaration = &Declaration { object: format!("pattern `{name}`"), ..declaration.clone() };
    let (regex, _) = declaration.required_text("regex")?;
    let (description, _) = declaration.required_text("description")?;
    Ok(Pattern {
        name: name.to_owned(),
        regex: regex.to_owned(),
        description: description.to_owned(),
        line: declaration.line,
    })
}

fn check_distinct(source: Source<'_>, table: &TableSchema) -> Result<()> {
    let mut names = HashMap::new();
    let mut paths = HashMap::new();
    for column in &table.columns {
        if let Some(first) = names.insert(&column.name, column.line) {
            return Err(source
                .wrong("two columns have one name", column.line, "name", &column.name)
                .with_hint(format!("the first is on line {first}: rename or remove one of them")));
        }
        if let Some(first) = paths.insert(&column.path, &column.name) {
            return Err(source
                .wrong("two columns read one path", column.line, "path", &column.path.join("."))
                .with_context("column", &column.name)
                .with_hint(format!("column `{first}` reads it already: remove one of them")));
        }
    }
    for column in &table.columns {
        for end in 1..column.path.len() {
            let Some(above) = paths.get(&column.path[..end].to_vec()) else { continue };
            let is_any =
                table.columns.iter().any(|other| other.name == **above && other.column_type == ColumnType::Any);
            if !is_any {
                return Err(source
                    .wrong("path leads through another column", column.line, "path", &column.path.join("."))
                    .with_context("column", &column.name)
                    .with_hint(format!("column `{above}` takes the value above it: give that one the type `any`")));
            }
        }
    }
    Ok(())
}

fn check_keys(source: Source<'_>, table: &TableSchema) -> Result<()> {
    let key = table.stream.key_column();
    let mut required = vec![(key, ColumnType::Text, "id")];
    if table.stream.is_append_only() {
        required.push(("updated_at", ColumnType::Timestamp, "attributes.createdAt"));
    } else if table.stream.is_incremental() {
        required.extend([
            ("updated_at", ColumnType::Timestamp, "attributes.updatedAt"),
            ("rev", ColumnType::Int, "attributes.rev"),
            ("deleted", ColumnType::Bool, "attributes.deleted"),
        ]);
    }
    for (name, column_type, path) in required {
        let hint = format!("write `name = \"{name}\"`, `path = \"{path}\"`, `type = \"{}\"`", column_type.name());
        let Some(column) = table.columns.iter().find(|column| column.name == name) else {
            return Err(source.wrong("key or replication column is missing", 1, "column", name).with_hint(hint));
        };
        if column.column_type != column_type || !column.path.iter().map(String::as_str).eq(path.split('.')) {
            return Err(source
                .wrong("key or replication column has another path or type", column.line, "column", name)
                .with_hint(hint));
        }
    }
    Ok(())
}

/// The file's name and text, for the lines of messages.
#[derive(Clone, Copy)]
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text[..self.text.floor_char_boundary(offset)].matches('\n').count()
    }

    fn wrong(&self, message: &str, line: usize, object: &'static str, value: &str) -> Error {
        Error::config(message).with_context("file", self.file).with_context("line", line).with_context(object, value)
    }

    fn syntax(&self, error: &toml::de::Error) -> Error {
        let offset = error.span().map_or(0, |span| span.start);
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Error::config("schema file is not valid TOML")
            .with_context("file", self.file)
            .with_context("line", self.line(offset))
            .with_context("column", column)
            .with_hint(error.message().replace('\n', ", "))
    }
}

/// One table of the file, with its place for messages.
#[derive(Clone)]
struct Declaration<'a> {
    source: Source<'a>,
    table: &'a DeTable<'a>,
    line: usize,
    object: String,
}

impl<'a> Declaration<'a> {
    fn wrong(&self, message: &str, line: usize, key: &'static str, value: &str) -> Error {
        self.source.wrong(message, line, key, value).with_context("in", &self.object)
    }

    fn get(&self, key: &str) -> Option<(&'a DeValue<'a>, usize)> {
        self.table.get(key).map(|value| (value.get_ref(), self.source.line(value.span().start)))
    }

    fn known_keys<const N: usize>(&self, known: &[&'static str; N]) -> Result<()> {
        let mut unknown: Vec<&Spanned<_>> =
            self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).collect();
        unknown.sort_by_key(|key| key.span().start);
        let Some(key) = unknown.first() else { return Ok(()) };
        let name: &str = key.get_ref();
        Err(self
            .wrong("unknown key", self.source.line(key.span().start), "key", name)
            .with_hint(did_you_mean(name, *known)))
    }

    fn text(&self, key: &'static str) -> Result<Option<(&'a str, usize)>> {
        let Some((value, line)) = self.get(key) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some((text, line))),
            None => Err(self
                .wrong("value must be a string", line, "key", key)
                .with_context("value", value.type_str())
                .with_hint(format!("write `{key} = \"…\"`"))),
        }
    }

    fn required_text(&self, key: &'static str) -> Result<(&'a str, usize)> {
        self.text(key)?.ok_or_else(|| {
            self.wrong("key is missing", self.line, "key", key).with_hint(format!("write `{key} = \"…\"`"))
        })
    }

    fn tables(&self, key: &'static str) -> Result<Vec<Self>> {
        let Some((value, line)) = self.get(key) else { return Ok(Vec::new()) };
        let not_tables = |line| {
            self.wrong("value must be an array of tables", line, "key", key)
                .with_hint(format!("start each with a line `[[{key}]]`"))
        };
        let items = value.as_array().ok_or_else(|| not_tables(line))?;
        let mut tables = Vec::with_capacity(items.len());
        for item in items {
            let line = self.source.line(item.span().start);
            let table = item.get_ref().as_table().ok_or_else(|| not_tables(line))?;
            tables.push(Self { source: self.source, table, line, object: key.to_owned() });
        }
        Ok(tables)
    }

    fn class(&self) -> Result<Class> {
        let (name, line) = self.required_text("class")?;
        Class::ALL.into_iter().find(|class| class.name() == name).ok_or_else(|| {
            self.wrong("unknown class", line, "class", name).with_hint(did_you_mean(name, Class::ALL.map(Class::name)))
        })
    }

    fn method(&self, class: Class) -> Result<MethodText> {
        let plain = |name: &str| MethodText { name: name.to_owned(), arguments: BTreeMap::new() };
        let Some((value, line)) = self.get("method") else {
            if class >= Class::Personal {
                return Err(self
                    .wrong("method is missing", self.line, "class", class.name())
                    .with_hint("what is personal or content has no default: write `method = \"drop\"`, or another"));
            }
            return Ok(plain("keep"));
        };
        if let Some(name) = value.as_str() {
            return Ok(plain(name));
        }
        let Some(table) = value.as_table() else {
            return Err(self
                .wrong("method must be a string or a table", line, "method", value.type_str())
                .with_hint("write `method = \"keep\"` or `method = { name = \"truncate\", to = \"day\" }`"));
        };
        let mut method = plain("");
        for (key, value) in table {
            let line = self.source.line(value.span().start);
            let one = |value: &DeValue<'_>| match value {
                DeValue::String(text) => Ok(text.to_string()),
                DeValue::Integer(number) => Ok(i64::from_str_radix(number.as_str(), number.radix())
                    .map_or_else(|_| number.to_string(), |number| number.to_string())),
                DeValue::Float(number) => Ok(number.as_str().to_owned()),
                other => Err(self
                    .wrong("argument must be a string, a number or an array of them", line, "method", key.get_ref())
                    .with_context("value", other.type_str())),
            };
            let name: &str = key.get_ref();
            if name == "name" {
                method.name = one(value.get_ref())?;
                continue;
            }
            let argument = match value.get_ref().as_array() {
                Some(items) => Argument::List(items.iter().map(|item| one(item.get_ref())).collect::<Result<_>>()?),
                None => Argument::One(one(value.get_ref())?),
            };
            method.arguments.insert(name.to_owned(), argument);
        }
        if method.name.is_empty() {
            return Err(self
                .wrong("method has no name", line, "method", "{ … }")
                .with_hint("write `method = { name = \"truncate\", to = \"day\" }`"));
        }
        Ok(method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "stream = \"tags\"\n[[column]]\nname = \"tag_id\"\npath = \"id\"\ntype = \"text\"\nclass = \"internal\"\ndescription = \"Id.\"\n";

    fn read(tail: &str) -> Result<TableSchema> {
        table("schemas/tags.toml", &format!("{HEAD}{tail}"))
    }

    fn column_text(lines: &str) -> String {
        let mut keys = BTreeMap::from([
            ("name", "name = \"label\""),
            ("path", "path = \"attributes.label\""),
            ("type", "type = \"text\""),
            ("class", "class = \"internal\""),
            ("description", "description = \"Label.\""),
        ]);
        for line in lines.lines() {
            keys.insert(line.split([' ', '=']).next().unwrap(), line);
        }
        let lines: Vec<&str> = keys.into_values().filter(|line| !line.ends_with("ABSENT")).collect();
        format!("[[column]]\n{}\n", lines.join("\n"))
    }

    #[test]
    fn defaults_and_arguments_are_read() {
        let table = read(&format!(
            "{}[[custom]]\npattern = \"*Txt\"\nclass = \"content\"\nmethod = \"drop\"\n",
            column_text("class = \"personal\"\nunit = \"ms\"\nmethod = { name = \"truncate\", chars = 12 }")
        ))
        .unwrap();
        assert_eq!((table.columns[0].line, table.columns[0].method.name.as_str()), (2, "keep"));
        let column = &table.columns[1];
        assert_eq!(column.path, ["attributes", "label"]);
        assert_eq!(column.unit.as_deref(), Some("ms"));
        assert_eq!(column.method.name, "truncate");
        assert_eq!(column.method.arguments["chars"], Argument::One("12".to_owned()));
        assert_eq!((column.line, table.custom[0].line), (8, 16));
        assert_eq!(table.custom[0].pattern, "*Txt");
    }

    #[test]
    fn wrong_declaration_is_one_error_with_its_place_and_a_way_out() {
        let cases = [
            (
                column_text("descripton = \"x\""),
                "unknown key (file: schemas/tags.toml, line: 11, key: descripton, in: column)",
                "did you mean `description`?",
            ),
            (
                column_text("type = \"txt\""),
                "unknown type (file: schemas/tags.toml, line: 13, type: txt, in: column `label`)",
                "did you mean `text`?",
            ),
            (
                column_text("type = \"uuid4\""),
                "unknown type (file: schemas/tags.toml, line: 13, type: uuid4, in: column `label`)",
                "known are: text, int, float, bool, timestamp, text_list, any",
            ),
            (
                column_text("type = 4"),
                "value must be a string (file: schemas/tags.toml, line: 13, key: type, in: column `label`, value: integer)",
                "write `type = \"…\"`",
            ),
            (
                column_text("class = \"publc\""),
                "unknown class (file: schemas/tags.toml, line: 9, class: publc, in: column `label`)",
                "did you mean `public`?",
            ),
            (
                column_text("class = \"personal\""),
                "method is missing (file: schemas/tags.toml, line: 8, class: personal, in: column `label`)",
                "what is personal or content has no default: write `method = \"drop\"`, or another",
            ),
            (
                column_text("description = ABSENT"),
                "key is missing (file: schemas/tags.toml, line: 8, key: description, in: column `label`)",
                "write `description = \"…\"`",
            ),
            (
                column_text("name = \"tag_id\""),
                "two columns have one name (file: schemas/tags.toml, line: 8, name: tag_id)",
                "the first is on line 2: rename or remove one of them",
            ),
            (
                column_text("path = \"id\""),
                "two columns read one path (file: schemas/tags.toml, line: 8, path: id, column: label)",
                "column `tag_id` reads it already: remove one of them",
            ),
            (
                column_text("path = \"id.x\""),
                "path leads through another column (file: schemas/tags.toml, line: 8, path: id.x, column: label)",
                "column `tag_id` takes the value above it: give that one the type `any`",
            ),
            (
                column_text("path = \"attributes..x\""),
                "not a path (file: schemas/tags.toml, line: 12, path: attributes..x, in: column `label`)",
                "a path is the keys from the record's root joined by dots, e.g. `attributes.queue.name`",
            ),
            (
                column_text("name = \"Label\""),
                "not a column name (file: schemas/tags.toml, line: 11, name: Label)",
                "a name has lower-case letters, digits and `_`, starts with a letter and is at most 63 long",
            ),
            (
                column_text("method = 3"),
                "method must be a string or a table (file: schemas/tags.toml, line: 11, method: integer, in: column `label`)",
                "write `method = \"keep\"` or `method = { name = \"truncate\", to = \"day\" }`",
            ),
            (
                column_text("method = { to = \"day\" }"),
                "method has no name (file: schemas/tags.toml, line: 11, method: { … }, in: column `label`)",
                "write `method = { name = \"truncate\", to = \"day\" }`",
            ),
            (
                "[[custom]]\npattern = \"a*b\"\nclass = \"internal\"\n".to_owned(),
                "not a pattern (file: schemas/tags.toml, line: 9, pattern: a*b, in: custom `a*b`)",
                "write an attribute's name (`tierStr`), or one `*` at the start or the end (`*Num`)",
            ),
            (
                "[[custom]]\npattern = \"*Num\"\nclass = \"internal\"\n".repeat(2),
                "two rules have one pattern (file: schemas/tags.toml, line: 11, pattern: *Num)",
                "the first is on line 8: remove one of them",
            ),
            (
                "[custom]\npattern = \"*Num\"\n".to_owned(),
                "value must be an array of tables (file: schemas/tags.toml, line: 8, key: custom, in: file)",
                "start each with a line `[[custom]]`",
            ),
        ];
        for (tail, message, hint) in cases {
            let error = read(&tail).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint(), Some(hint), "{message}");
        }
    }

    #[test]
    fn syntax_error_names_line_and_column() {
        let error = read("[[column]]\nname = \n").unwrap_err();
        assert!(
            error.to_string().starts_with("schema file is not valid TOML (file: schemas/tags.toml, line: 9, column: "),
            "{error}"
        );
    }

    #[test]
    fn stream_and_file_name_must_match() {
        let wrong = |file: &str, text: &str| table(file, text).unwrap_err();
        let error = wrong("tag.toml", HEAD);
        assert_eq!(error.to_string(), "file is not named after its stream (file: tag.toml, line: 1, stream: tags)");
        let error = wrong("tags.toml", "stream = \"tagz\"");
        assert_eq!(error.to_string(), "unknown stream (file: tags.toml, line: 1, stream: tagz)");
        assert_eq!(error.hint(), Some("did you mean `tags`?"));
    }

    #[test]
    fn key_and_replication_columns_are_required() {
        let error = table("tags.toml", "stream = \"tags\"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "key or replication column is missing (file: tags.toml, line: 1, column: tag_id)"
        );
        let text = HEAD.replace("tags", "tickets").replace("tag_id", "ticket_id");
        let error = table("tickets.toml", &text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "key or replication column is missing (file: tickets.toml, line: 1, column: updated_at)"
        );
        let error = table("tags.toml", &HEAD.replace("\"text\"", "\"int\"")).unwrap_err();
        assert_eq!(error.hint(), Some("write `name = \"tag_id\"`, `path = \"id\"`, `type = \"text\"`"));
    }
}
