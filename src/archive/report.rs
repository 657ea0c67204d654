//! What a walk found besides members, and the words for it.

use std::fmt;

use super::Kind;

/// Paths listed in a report.
const LISTED_MAX: usize = 20;
/// Faults listed in a report.
const FAULTS_MAX: usize = 5;
/// Passwords and compression methods listed in a report.
const WORDS_MAX: usize = 16;

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitName {
    TotalExpanded,
    Members,
    Ratio,
    Nesting,
    /// Entries of a zip that share bytes, which no writer of archives does; `limit` is 0, `value` counts them.
    Overlap,
}

impl LimitName {
    /// The configuration key; `overlapping entries` has none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TotalExpanded => "max_total_expanded",
            Self::Members => "max_members",
            Self::Ratio => "max_ratio",
            Self::Nesting => "max_nesting",
            Self::Overlap => "overlapping entries",
        }
    }
}

/// A limit and what was met instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitHit {
    pub name: LimitName,
    pub limit: u64,
    pub value: u64,
}

impl fmt::Display for LimitHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, limit, value } = self;
        match name {
            LimitName::Overlap => write!(f, "{}: {value}", name.as_str()),
            LimitName::TotalExpanded | LimitName::Members | LimitName::Ratio | LimitName::Nesting => {
                write!(f, "{} = {limit} reached: {value}", name.as_str())
            }
        }
    }
}

/// What a walk found besides members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub kind: Kind,
    /// Members visited, duplicates too.
    pub members: u64,
    /// Of these, bytes seen before in this walk.
    pub duplicates: u64,
    /// Of these, visited with an unsafe path.
    pub unsafe_paths: u64,
    /// Bytes that came out on all levels.
    pub expanded: u64,
    /// Encrypted members that a password opened.
    pub decrypted: u64,
    /// Encrypted members that none opened.
    pub encrypted: u64,
    /// Those that opened a member, in the order of their first success; at most 16.
    pub passwords: Vec<String>,
    /// So many passwords and encrypted members that not every pair was tried.
    pub tries_cut: bool,
    /// The first fault: where and what.
    pub corrupt: Option<String>,
    /// The next ones that say something else, at most four.
    pub further: Vec<String>,
    /// How many faults there were.
    pub faults: u64,
    /// The first limit reached; see [`LimitName`].
    pub limit: Option<LimitHit>,
    /// Members of a zip whose compression method is unknown here.
    pub unsupported: u64,
    /// Their methods, sorted; at most 16.
    pub methods: Vec<u16>,
    /// The first 20 members above `max_member`, with the size they claim or, when nothing says, `max_member` + 1.
    pub too_large: Vec<(String, u64)>,
    /// How many there were.
    pub too_large_count: u64,
    /// Symbolic and hard links.
    pub links: u64,
    pub directories: u64,
    /// Devices, pipes and other entries without bytes of their own.
    pub specials: u64,
    /// Ended by the visitor or by [`super::Options::go_on`].
    pub stopped: bool,
}

impl Report {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            members: 0,
            duplicates: 0,
            unsafe_paths: 0,
            expanded: 0,
            decrypted: 0,
            encrypted: 0,
            passwords: Vec::new(),
            tries_cut: false,
            corrupt: None,
            further: Vec::new(),
            faults: 0,
            limit: None,
            unsupported: 0,
            methods: Vec::new(),
            too_large: Vec::new(),
            too_large_count: 0,
            links: 0,
            directories: 0,
            specials: 0,
            stopped: false,
        }
    }

    /// Whether the job ends as `completed-with-errors` (workers.md 2.3, "Troubled input").
    pub fn is_troubled(&self) -> bool {
        self.encrypted > 0
            || self.corrupt.is_some()
            || self.limit.is_some()
            || self.unsupported > 0
            || self.too_large_count > 0
    }

    /// What to say in a status message, one sentence per trouble; empty without any.
    pub fn notes(&self, max_member: u64) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(hit) = &self.limit {
            notes.push(format!("archive limit: {hit}"));
        }
        if self.encrypted > 0 {
            let cut = if self.tries_cut { " of those tried" } else { "" };
            notes.push(format!("{}: no password{cut} opens them", counted(self.encrypted, "encrypted member")));
        }
        if let Some(reason) = &self.corrupt {
            let named = std::iter::once(reason).chain(&self.further).map(String::as_str).collect::<Vec<_>>();
            let all = if u64::try_from(named.len()).is_ok_and(|named| named < self.faults) {
                format!(" ({} faults)", self.faults)
            } else {
                String::new()
            };
            notes.push(format!("archive corrupt: {}{all}", named.join(", ")));
        }
        if self.unsupported > 0 {
            let methods = self.methods.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            let members = counted(self.unsupported, "member");
            notes.push(format!("{members} with unknown compression method {methods}"));
        }
        if self.too_large_count > 0 {
            notes.push(self.too_large_note(max_member));
        }
        notes
    }

    fn too_large_note(&self, max_member: u64) -> String {
        let listed =
            self.too_large.iter().map(|(path, size)| format!("{path} ({size})")).collect::<Vec<_>>().join(", ");
        let count = self.too_large_count;
        match u64::try_from(self.too_large.len()) {
            Ok(shown) if shown < count => format!("{shown} of {count} members above {max_member} bytes: {listed}"),
            _ => format!("{} above {max_member} bytes: {listed}", counted(count, "member")),
        }
    }

    pub(super) fn note_fault(&mut self, reason: String) {
        self.faults = self.faults.saturating_add(1);
        match &self.corrupt {
            None => self.corrupt = Some(reason),
            Some(first) if *first == reason || self.further.contains(&reason) => {}
            Some(_) if self.further.len() + 1 < FAULTS_MAX => self.further.push(reason),
            Some(_) => {}
        }
    }

    pub(super) fn note_limit(&mut self, name: LimitName, limit: u64, value: u64) {
        self.limit.get_or_insert(LimitHit { name, limit, value });
    }

    pub(super) fn note_too_large(&mut self, path: String, size: u64) {
        self.too_large_count = self.too_large_count.saturating_add(1);
        if self.too_large.len() < LISTED_MAX {
            self.too_large.push((path, size));
        }
    }

    pub(super) fn note_unsupported(&mut self, method: u16) {
        self.unsupported = self.unsupported.saturating_add(1);
        if let Err(at) = self.methods.binary_search(&method)
            && self.methods.len() < WORDS_MAX
        {
            self.methods.insert(at, method);
        }
    }

    pub(super) fn note_password(&mut self, password: &str) {
        self.decrypted = self.decrypted.saturating_add(1);
        if self.passwords.len() < WORDS_MAX && !self.passwords.iter().any(|known| known == password) {
            self.passwords.push(password.to_owned());
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_faults_are_named_and_the_others_counted() {
        let mut report = Report::new(Kind::Zip);
        report.note_fault("a: cut off".into());
        assert_eq!(report.notes(1), ["archive corrupt: a: cut off"]);
        report.note_fault("b: checksum".into());
        assert_eq!(report.notes(1), ["archive corrupt: a: cut off, b: checksum"]);
        (0..9).for_each(|number| report.note_fault(format!("{number}")));
        assert_eq!(report.notes(1), ["archive corrupt: a: cut off, b: checksum, 0, 1, 2 (11 faults)"]);
    }
}
