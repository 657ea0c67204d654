//! `/api/azulite/v1/rules`: the rules of the YARA worker inside this process, and what it knows of packages.

use std::sync::Arc;

use http::Method;
use warp::reply::Response;

use super::azulite::json;
use super::{Services, error};
use crate::workers::yara::Yara;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What is in use.
    List,
    /// Read them again; answered when the new ones are in use.
    Reload,
    /// The report over a package.
    Package { name: String, version: String },
}

impl Asked {
    /// From the decoded segments behind `/api/azulite/v1/rules`.
    pub(super) fn find(method: &Method, segments: &[&str]) -> Option<Self> {
        let (get, post) = (method == Method::GET, method == Method::POST);
        match *segments {
            [] if get => Some(Self::List),
            ["reload"] if post => Some(Self::Reload),
            ["packages", name, version] if get && !name.is_empty() && !version.is_empty() => {
                Some(Self::Package { name: name.to_owned(), version: version.to_owned() })
            }
            _ => None,
        }
    }

    /// The path as metrics name it.
    pub(super) fn template(&self) -> &'static str {
        match self {
            Self::List => "/api/azulite/v1/rules",
            Self::Reload => "/api/azulite/v1/rules/reload",
            Self::Package { .. } => "/api/azulite/v1/rules/packages/:name/:version",
        }
    }

    pub(super) async fn answer(self, services: &Services) -> Response {
        let yara = services.workers.as_ref().and_then(|workers| workers.yara().cloned());
        let Some(yara) = yara else { return error::unknown("worker", "yara") };
        match tokio::task::spawn_blocking(move || self.blocking(&yara)).await {
            Ok(response) => response,
            Err(stopped) => error::internal("the request stopped", &stopped.to_string()),
        }
    }

    fn blocking(self, yara: &Arc<Yara>) -> Response {
        match self {
            Self::List => json(&yara.listing()),
            Self::Reload => match yara.reload_rules() {
                Ok(listing) => json(&listing),
                Err(problem) => error::rules(&problem.to_string()),
            },
            Self::Package { name, version } => match yara.report(&name, &version) {
                Ok(Some(report)) => json(&report),
                Ok(None) => error::unknown("package", &format!("{name} {version}")),
                Err(problem) => error::internal("the package cannot be read", &problem.to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_method() {
        assert_eq!(Asked::find(&Method::GET, &[]), Some(Asked::List));
        assert_eq!(Asked::find(&Method::POST, &["reload"]), Some(Asked::Reload));
        assert_eq!(Asked::find(&Method::GET, &["reload"]), None);
        let package = Asked::Package { name: "p".into(), version: "1/2".into() };
        assert_eq!(Asked::find(&Method::GET, &["packages", "p", "1/2"]), Some(package));
        assert_eq!(Asked::find(&Method::GET, &["packages", "p", ""]), None);
    }
}
