//! Reading `appliance.toml`: every value with the line of its key.

use super::layer::{KeyPath, Origin, Setting};
use super::problem::Problem;
use serde_json::{Map, Value as Json};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml_edit::{Document, Item, Key, TableLike, Value};

/// Looked for in this order when no `--config` names a file (`cli.md` section 2).
pub const SEARCHED: [&str; 2] = ["./appliance.toml", "/etc/azulite/appliance.toml"];

/// The first of `searched` that exists; one that exists but cannot be looked at counts, so that it is not skipped.
pub(super) fn find(searched: &[PathBuf]) -> Option<PathBuf> {
    searched.iter().find(|path| path.try_exists().unwrap_or(true)).cloned()
}

/// All settings of the file at `path`, in the order of the file.
pub(super) fn read(path: &Path) -> Result<Vec<Setting>, Problem> {
    let whole_file = |line: Option<usize>, message: String| Problem {
        origin: Origin::File { path: path.to_owned(), line },
        key: String::new(),
        value: String::new(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|error| whole_file(None, format!("cannot be read: {error}")))?;
    let document = Document::parse(text.as_str()).map_err(|error| {
        whole_file(Some(line_of(&text, error.span())), format!("not TOML: {}", error.message().replace('\n', ", ")))
    })?;
    let mut walk = Walk { path, text: &text, settings: Vec::new() };
    walk.table(&[], document.as_table());
    Ok(walk.settings)
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let before = span.and_then(|span| text.as_bytes().get(..span.start)).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    settings: Vec<Setting>,
}

impl Walk<'_> {
    fn table(&mut self, above: &[String], table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let place = table.key(name).and_then(Key::span).or_else(|| item.span());
            let parts = [above, &[name.to_owned()]].concat();
            match item.as_table_like() {
                Some(inner) if !inner.is_empty() => self.table(&parts, inner),
                _ => self.value(parts, item, place),
            }
        }
    }

    fn value(&mut self, parts: Vec<String>, item: &Item, place: Option<Range<usize>>) {
        let origin = Origin::File { path: self.path.to_owned(), line: Some(line_of(self.text, place)) };
        self.settings.push(Setting::typed(KeyPath::new(parts), json_of_item(item), origin));
    }
}

fn json_of_item(item: &Item) -> Json {
    match item {
        Item::None => Json::Null,
        Item::Value(value) => json_of_value(value),
        Item::Table(table) => json_of_table(table),
        Item::ArrayOfTables(tables) => Json::Array(tables.iter().map(|table| json_of_table(table)).collect()),
    }
}

fn json_of_table(table: &dyn TableLike) -> Json {
    Json::Object(table.iter().map(|(name, item)| (name.to_owned(), json_of_item(item))).collect::<Map<_, _>>())
}

fn json_of_value(value: &Value) -> Json {
    match value {
        Value::String(text) => Json::from(text.value().as_str()),
        Value::Integer(number) => Json::from(*number.value()),
        Value::Float(number) => Json::from(*number.value()),
        Value::Boolean(flag) => Json::from(*flag.value()),
        Value::Datetime(time) => Json::from(time.value().to_string()),
        Value::Array(values) => Json::Array(values.iter().map(json_of_value).collect()),
        Value::InlineTable(table) => json_of_table(table),
    }
}
