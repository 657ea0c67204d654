//! What is known of packages: every distribution that was scanned, and the report over all of them (workers.md 2.3).
//!
//! One file for each package below a directory of the worker's own, replaced durably after every distribution. It is not
//! derived from the log, because a worker sees a dispatcher only through its events; losing it loses nothing but reports of
//! packages whose distributions are not scanned again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use azulite_storage::fs::{RealFs, create_dir_durably, read_small, replace_durably};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::engine::hex;
use super::score::Top;

/// Most distributions of a package that are kept.
const DISTRIBUTIONS_MAX: usize = 10_000;
/// Largest file of a package.
const FILE_MAX: usize = 64 << 20;
/// Longest text of what went wrong.
const ERROR_MAX: usize = 2_000;

/// The packages of a worker.
#[derive(Debug)]
pub struct Packages {
    dir: PathBuf,
    /// One package is changed at a time.
    turn: Mutex<()>,
}

/// A distribution of a package, as it was scanned last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// Source of its event.
    pub source: String,
    /// SHA-256 of the object.
    pub sha256: String,
    /// Its name.
    pub filename: String,
    /// What it scores.
    pub score: i64,
    /// Rules that match in it.
    pub rules_matched: Vec<String>,
    /// The rule set that scanned it.
    pub commit: String,
    /// Its most malicious file.
    pub top_member: Option<TopMember>,
    /// What is missing; nothing is known of one that failed but this.
    pub error: Option<String>,
    /// The scan failed.
    pub failed: bool,
}

/// The most malicious file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopMember {
    /// Path in the archive; empty for the object itself.
    pub path: String,
    /// Its SHA-256.
    pub sha256: String,
    /// SHA-256 of the object that holds it.
    pub parent_sha256: String,
    /// What it scores.
    pub score: i64,
    /// Where its bytes are, when they were published.
    pub address: Option<String>,
}

impl TopMember {
    /// Of `top` in the object `parent` of `source`.
    pub(super) fn new(top: &Top, source: &str, parent: &str, published: bool) -> Self {
        let sha256 = if top.sha256.is_empty() { parent } else { &top.sha256 };
        Self {
            path: top.path.clone(),
            sha256: sha256.to_owned(),
            parent_sha256: parent.to_owned(),
            score: top.score,
            address: published.then(|| format!("/api/v3/stream/{source}/content/{sha256}")),
        }
    }
}

/// The report over a package, in the shape that the absorbed scanner sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// Something was scanned.
    Scanned(Box<PackageReport>),
    /// Every scan failed.
    Failed {
        /// Name.
        name: String,
        /// Version.
        version: String,
        /// Why the first one did.
        reason: String,
    },
}

/// What the scans of a package came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackageReport {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Highest score of a distribution.
    pub score: i64,
    /// Address of the most malicious file here, if it was published.
    pub inspector_url: Option<String>,
    /// Over all distributions.
    pub rules_matched: Vec<String>,
    /// The rule set that scanned the highest scoring one.
    pub commit: String,
    /// Most malicious file.
    pub top_member: Option<TopMember>,
    /// All distributions.
    pub distributions: Vec<Distribution>,
    /// What is missing, with the distribution's SHA-256 before it.
    pub errors: Vec<String>,
}

/// What a file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Package {
    name: String,
    version: String,
    /// By source and SHA-256.
    distributions: BTreeMap<String, Distribution>,
}

impl Packages {
    /// Those in `dir`, which is made when it is needed.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, turn: Mutex::new(()) }
    }

    /// Stores what came of a distribution, and says what the package scores now.
    ///
    /// # Durability
    /// On `Ok` it is stored.
    /// # Errors
    /// The disk's.
    pub fn record(&self, name: &str, version: &str, mut distribution: Distribution) -> io::Result<i64> {
        if let Some(error) = &mut distribution.error
            && let Some((end, _)) = error.char_indices().nth(ERROR_MAX)
        {
            error.truncate(end);
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut package = self.read(name, version)?.unwrap_or_default();
        (package.name, package.version) = (name.to_owned(), version.to_owned());
        let key = format!("{}/{}", distribution.source, distribution.sha256);
        if package.distributions.contains_key(&key) || package.distributions.len() < DISTRIBUTIONS_MAX {
            package.distributions.insert(key, distribution);
        }
        create_dir_durably(&RealFs, &self.dir)?;
        let bytes = serde_json::to_vec(&package).map_err(io::Error::other)?;
        if bytes.len() > FILE_MAX {
            // It could not be read again.
            tracing::warn!(name, version, "the report of a package is full: a distribution is not in it");
            return Ok(package.score());
        }
        replace_durably(&RealFs, &self.path(name, version), &bytes)?;
        drop(turn);
        Ok(package.score())
    }

    /// The report over a package; `None` when nothing of it was scanned.
    ///
    /// # Errors
    /// The disk's, or a file that is no package.
    pub fn report(&self, name: &str, version: &str) -> io::Result<Option<Report>> {
        Ok(self.read(name, version)?.map(Package::report))
    }

    fn read(&self, name: &str, version: &str) -> io::Result<Option<Package>> {
        match read_small(&RealFs, &self.path(name, version), FILE_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names come from outside: a digest is a name that leads nowhere else.
    fn path(&self, name: &str, version: &str) -> PathBuf {
        self.dir.join(format!("{}.json", hex(&Sha256::digest(format!("{name}\0{version}")))))
    }
}

impl Package {
    fn scanned(&self) -> impl Iterator<Item = &Distribution> {
        self.distributions.values().filter(|distribution| !distribution.failed)
    }

    fn score(&self) -> i64 {
        self.scanned().map(|distribution| distribution.score).max().unwrap_or(0)
    }

    fn report(self) -> Report {
        let told = |distribution: &Distribution| {
            distribution.error.as_ref().map(|error| format!("{}: {error}", distribution.sha256))
        };
        let errors: Vec<String> = self.distributions.values().filter_map(told).collect();
        // The first of the highest.
        let best = self.scanned().reduce(|best, next| if next.score > best.score { next } else { best });
        let Some(best) = best else {
            let reason = errors.into_iter().next().unwrap_or_default();
            return Report::Failed { name: self.name, version: self.version, reason };
        };
        let rules: std::collections::BTreeSet<_> =
            self.scanned().flat_map(|distribution| distribution.rules_matched.iter().cloned()).collect();
        let (score, commit, top_member) = (best.score, best.commit.clone(), best.top_member.clone());
        Report::Scanned(Box::new(PackageReport {
            score,
            inspector_url: top_member.as_ref().and_then(|top| top.address.clone()),
            rules_matched: rules.into_iter().collect(),
            commit,
            top_member,
            errors,
            name: self.name,
            version: self.version,
            distributions: self.distributions.into_values().collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(sha256: &str, score: i64, rules: &[&str]) -> Distribution {
        Distribution {
            source: "s".into(),
            sha256: sha256.into(),
            score,
            rules_matched: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            commit: format!("set of {sha256}"),
            ..Distribution::default()
        }
    }

    #[test]
    fn the_package_has_the_highest_score_and_all_rules() {
        let folder = tempfile::tempdir().unwrap();
        let packages = Packages::new(folder.path().join("packages"));
        assert_eq!(packages.record("p", "1", distribution("a", 8, &["x", "y"])).unwrap(), 8);
        assert_eq!(packages.record("p", "1", distribution("b", 5, &["x", "z"])).unwrap(), 8);
        // The same one again counts once.
        assert_eq!(packages.record("p", "1", distribution("b", 5, &["x", "z"])).unwrap(), 8);
        let reread = Packages::new(folder.path().join("packages"));
        let Some(Report::Scanned(report)) = reread.report("p", "1").unwrap() else { panic!("no report") };
        let PackageReport { score, rules_matched, commit, distributions, inspector_url, .. } = *report;
        assert_eq!((score, commit.as_str(), distributions.len(), inspector_url), (8, "set of a", 2, None));
        assert_eq!(rules_matched, ["x", "y", "z"]);
        assert_eq!(reread.report("p", "2").unwrap(), None);
        assert_eq!(reread.report("../p", "1").unwrap(), None);
    }

    #[test]
    fn a_package_of_failures_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let packages = Packages::new(folder.path().to_owned());
        let failed = Distribution { failed: true, error: Some("x".repeat(5_000)), ..distribution("a", 0, &[]) };
        packages.record("p", "1", failed).unwrap();
        let Some(Report::Failed { reason, .. }) = packages.report("p", "1").unwrap() else { panic!("no failure") };
        assert_eq!(reason.len(), 2_003);
    }
}
