//! The type table: every `file_format` Azul knows, with its extension (streams.md 8.7, 8.8).
//!
//! `filetypes.csv` is the contract's table, built into the binary. Called by `Identifier`, and by whoever has to make
//! sense of a type name that came from elsewhere.

use std::collections::BTreeMap;

const CSV: &str = include_str!("filetypes.csv");

/// Names that rules can give and that must not be reported as they are: upstream's process dies on the first one,
/// and text/rdp never wins.
const REPORTED_AS: [(&str, &str); 2] = [("metadata/sysmon/evt", "metadata/sysmon"), ("text/rdp", "text/plain")];

/// One row of the type table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileType {
    /// Azul's name, as `document/pdf`.
    pub file_format: String,
    /// Without dot; descriptive, not always what a user expects.
    pub extension: Option<String>,
    /// The part of the name before the first `/`.
    pub category: String,
}

/// All known types by name, and by the coarse names of older systems.
#[derive(Debug)]
pub struct TypeTable {
    rows: BTreeMap<String, FileType>,
    legacy: BTreeMap<String, String>,
}

impl TypeTable {
    /// Reads the table that is built in.
    ///
    /// # Panics
    ///
    /// When the built-in file is not a table with the six known columns, which is our own mistake.
    pub fn load() -> Self {
        let mut rows = BTreeMap::new();
        let mut legacy = BTreeMap::new();
        for line in CSV.lines().skip(1).filter(|line| !line.is_empty()) {
            let fields = csv_fields(line);
            let [file_format, extension, category, legacy_type, _mime, _how] = fields.as_slice() else {
                panic!("filetypes.csv: not six columns: {line}");
            };
            for name in legacy_type.split("; ").filter(|name| !name.is_empty()) {
                legacy.insert(name.to_ascii_lowercase(), file_format.clone());
            }
            let row = FileType {
                file_format: file_format.clone(),
                extension: (!extension.is_empty()).then(|| extension.clone()),
                category: category.clone(),
            };
            rows.insert(file_format.clone(), row);
        }
        assert!(rows.contains_key("unknown"), "filetypes.csv lacks the type unknown");
        Self { rows, legacy }
    }

    /// The row of exactly this name.
    pub fn get(&self, file_format: &str) -> Option<&FileType> {
        self.rows.get(file_format)
    }

    /// The type to report for a name that a rule gave: itself, its nearest known parent, or `unknown`.
    ///
    /// A name without a row must never fail an upload (streams.md 8.8, 11 row 8).
    pub fn reported(&self, name: &str) -> FileType {
        let mut name = REPORTED_AS.iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| to);
        loop {
            if let Some(row) = self.rows.get(name) {
                return row.clone();
            }
            match name.rsplit_once('/') {
                Some((parent, _)) => name = parent,
                None => break,
            }
        }
        FileType { file_format: "unknown".into(), extension: None, category: "unknown".into() }
    }

    /// The type an older system's coarse name stands for, without regard to case; the last row with that name wins.
    pub fn by_legacy_name(&self, name: &str) -> Option<&FileType> {
        self.rows.get(self.legacy.get(&name.to_ascii_lowercase())?)
    }

    /// All rows, by name.
    pub fn iter(&self) -> impl Iterator<Item = &FileType> {
        self.rows.values()
    }
}

/// Fields of one line; a field may be quoted, a quote within quotes is doubled. No field spans lines.
fn csv_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => push(&mut fields, '"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => push(&mut fields, other),
        }
    }
    fields
}

fn push(fields: &mut [String], c: char) {
    if let Some(field) = fields.last_mut() {
        field.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{indicators, mimes, refine, rules};
    use super::*;

    #[test]
    fn table_is_the_contracts() {
        let table = TypeTable::load();
        assert_eq!(table.iter().count(), 163);
        let added = ["document/epub", "metadata/sysmon/evt", "text/rdp"];
        let upstream: Vec<_> = table.iter().filter(|row| !added.contains(&row.file_format.as_str())).collect();
        assert_eq!(upstream.len(), 160);
        assert_eq!(upstream.iter().filter(|row| row.extension.is_none()).count(), 37);
        assert!(table.iter().all(|row| row.file_format.split('/').next() == Some(&row.category)));
        assert_eq!(table.get("video/avi").unwrap().extension.as_deref(), Some("avif"));
        assert_eq!(table.get("archive/arc").unwrap().extension, None);
    }

    #[test]
    fn every_type_a_rule_can_name_is_in_the_table() {
        let table = TypeTable::load();
        let named = rules::named_types()
            .chain(mimes::TRUSTED.iter().map(|(_, file_type)| *file_type))
            .chain(indicators::TYPES)
            .chain(refine::TYPES);
        for name in named {
            assert!(table.get(name).is_some(), "{name}");
            assert!(table.get(&table.reported(name).file_format).is_some(), "{name}");
        }
    }

    #[test]
    fn unknown_names_fall_back() {
        let table = TypeTable::load();
        for (name, want, extension) in [
            ("metadata/sysmon/evt", "metadata/sysmon", None),
            ("document/epub", "document/epub", Some("epub")),
            ("text/rdp", "text/plain", Some("txt")),
            ("document/pdf/strange/thing", "document/pdf", Some("pdf")),
            ("never/heard/of", "unknown", None),
            ("", "unknown", None),
        ] {
            let got = table.reported(name);
            assert_eq!((got.file_format.as_str(), got.extension.as_deref()), (want, extension), "{name}");
        }
    }

    #[test]
    fn legacy_names_ignore_case_and_the_last_row_wins() {
        let table = TypeTable::load();
        assert_eq!(table.by_legacy_name("HtmL").unwrap().file_format, "code/html/component");
        assert_eq!(table.by_legacy_name("office unknown").unwrap().file_format, "document/office/unknown");
        assert_eq!(table.by_legacy_name("no such thing"), None);
    }
}
