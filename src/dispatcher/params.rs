//! Query parameters of the event routes: [`GetParams`] of `passive` and `active`, [`PostParams`] of POST.
//!
//! Contract events.md 1.3, 1.4 and 1.6. The HTTP edge splits the query into pairs (order and repeats kept, percent
//! coding undone) and calls in here before anything else happens; a [`BadParam`] becomes the 422 of section 1.4.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use super::model::Model;
use super::topic::Action;

/// Longest single text value (`name`, `version`, `deployment_key`, `max-security`, one `r-source`, one `r-streams`).
pub const TEXT_MAX_BYTES: usize = 4096;
/// Most values of one repeatable parameter.
pub const REPEATS_MAX: usize = 1024;
/// Most bytes in all `r-source` values together.
///
/// With the other two bounds a plugin key stays under 27 KiB, so that its group names fit the 32,767 bytes of a Kafka
/// string with every topic prefix.
pub const SOURCES_MAX_BYTES: usize = 8192;
/// Longest time one GET is held; a longer `deadline` is cut to it.
pub const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Parameters of old releases that have no current meaning under their own name (events.md 1.3, "old README name").
const OLD_ONLY_NAMES: [&str; 10] = [
    "timeout",
    "ignore-historic",
    "requires-data",
    "f-allow-event-type",
    "f-deny-event-type",
    "f-self",
    "f-max-content-size",
    "f-min-content-size",
    "f-data-type",
    "filter",
];

/// What the deployment sets for GET requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `api_event_fetch_limit`: `count` is cut to it.
    pub fetch_limit: usize,
    /// `api_default_event_wait`: `deadline` when the request has none, in seconds.
    pub default_wait_secs: u64,
}

/// A refused GET; the text is the `detail` of the 422 answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BadParam {
    detail: String,
}

impl BadParam {
    fn new(name: &str, reason: impl std::fmt::Display) -> BadParam {
        BadParam { detail: format!("bad parameter for {name}: {reason}") }
    }

    fn plain(detail: &str) -> BadParam {
        BadParam { detail: detail.to_owned() }
    }
}

/// A checked GET of `passive` or `active`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetParams {
    /// Model of the events wanted.
    pub model: Model,
    /// Consumer name, may be empty.
    pub name: String,
    /// Consumer version, may be empty.
    pub version: String,
    /// Groups the instances of one deployment; empty when there is none.
    pub deployment_key: String,
    /// Most events to return, 1 to the fetch limit.
    pub count: usize,
    /// How long to wait for `count` events; zero is one sweep over what is there.
    pub deadline: Duration,
    /// The events part is an Avro container instead of JSON.
    pub avro: bool,
    /// Reads the expedite topic.
    pub expedite: bool,
    /// Reads from the time of the first request on.
    pub live: bool,
    /// Reads from the beginning.
    pub historic: bool,
    /// A `content` stream must be there (`r-content`); then `actions` holds its pair.
    pub require_content: bool,
    /// Sources wanted, in request order; empty means all.
    pub sources: Vec<String>,
    /// Actions wanted, in request order; empty means all.
    pub actions: Vec<Action>,
    /// Actions not wanted.
    pub deny_actions: Vec<Action>,
    /// Events of an author named like the consumer are not wanted.
    pub deny_self: bool,
    /// The content stream has at most this many bytes.
    pub under_content_size: Option<u64>,
    /// The content stream has at least this many bytes.
    pub over_content_size: Option<u64>,
    /// Stream label, or `*`, to the file format prefixes wanted (none means any format).
    pub streams: BTreeMap<String, Vec<String>>,
    /// Highest security the consumer may receive; empty is off.
    pub max_security: String,
    /// The read positions of the plugin key are dropped first.
    pub reset: bool,
    /// The positions of an inspector, apart from the plugin's own.
    pub debug: bool,
    /// The request carries the removed `filter` parameter; the caller logs a warning.
    pub filter_ignored: bool,
}

impl GetParams {
    /// Reads the query of a GET. `model` is the path's; `is-task` is never read, unknown names are ignored.
    ///
    /// # Errors
    /// The first failure in the order of events.md 1.4; the bounds that only this server has come last.
    pub fn parse(model: &str, pairs: &[(String, String)], limits: &Limits) -> Result<GetParams, BadParam> {
        let query = Query { pairs };
        let unknown = || BadParam::new("model", format_args!("not a registered model type: {}", shown(model)));
        let model = Model::parse(model).ok_or_else(unknown)?;
        let avro = query.flag("avro-format", None)?;
        let [expedite, live, historic] = query.flows(model)?;
        let count = query.integer("count", None)?.unwrap_or(1);
        let deadline = query.integer("deadline", Some("timeout"))?;
        let [under_content_size, over_content_size] = query.content_sizes()?;
        let require_content = query.flag("r-content", Some("requires-data"))?;
        let [actions, deny_actions] = query.actions(require_content)?;
        let deny_self = query.flag("d-self", Some("f-self"))?;
        let reset = query.flag("reset", None)?;
        let debug = query.flag("debug", None)?;
        Ok(GetParams {
            model,
            name: query.text("name")?,
            version: query.text("version")?,
            deployment_key: query.text("deployment_key")?,
            count: usize::try_from(count.max(1)).unwrap_or(usize::MAX).min(limits.fetch_limit.max(1)),
            deadline: wait(deadline, limits),
            avro,
            expedite,
            live,
            historic,
            require_content,
            sources: query.sources()?,
            actions,
            deny_actions,
            deny_self,
            under_content_size,
            over_content_size,
            streams: query.streams()?,
            max_security: query.text("max-security")?,
            reset,
            debug,
            filter_ignored: pairs.iter().any(|(name, _)| name == "filter"),
        })
    }

    /// A number for what it lets through, the same for every request with the same filters; never 0.
    pub fn filters(&self) -> u64 {
        const OTHERS: [&str; 6] = ["avro-format", "count", "deadline", "deployment_key", "reset", "debug"];
        let mut hasher = DefaultHasher::new();
        self.to_query().iter().filter(|(name, _)| !OTHERS.contains(&name.as_str())).for_each(|p| p.hash(&mut hasher));
        hasher.finish().max(1)
    }

    /// The query in current names that [`GetParams::parse`] reads as these parameters.
    pub fn to_query(&self) -> Vec<(String, String)> {
        let flags = [
            ("avro-format", self.avro),
            ("r-expedite", self.expedite),
            ("r-live", self.live),
            ("r-historic", self.historic),
            ("r-content", self.require_content),
            ("d-self", self.deny_self),
            ("reset", self.reset),
            ("debug", self.debug),
        ];
        let numbers = [
            ("count", u64::try_from(self.count).ok()),
            ("deadline", Some(self.deadline.as_secs())),
            ("r-under-content-size", self.under_content_size),
            ("r-over-content-size", self.over_content_size),
        ];
        let texts = [
            ("name", &self.name),
            ("version", &self.version),
            ("deployment_key", &self.deployment_key),
            ("max-security", &self.max_security),
        ];
        // `r-content` stands for its pair.
        let actions = if self.require_content { &[][..] } else { &self.actions };
        let set = flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true".to_owned()));
        let mut query: Vec<(&str, String)> = set.collect();
        query.extend(numbers.into_iter().filter_map(|(name, number)| number.map(|number| (name, number.to_string()))));
        query.extend(texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, text.clone())));
        query.extend(self.sources.iter().map(|source| ("r-source", source.clone())));
        query.extend(actions.iter().map(|action| ("r-action", action.as_str().to_owned())));
        query.extend(self.deny_actions.iter().map(|action| ("d-action", action.as_str().to_owned())));
        let stream = |(label, prefixes): (&String, &Vec<String>)| {
            ("r-streams", std::iter::once(label).chain(prefixes).map(String::as_str).collect::<Vec<_>>().join(","))
        };
        query.extend(self.streams.iter().map(stream));
        query.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Parameters of POST `/api/v2/event`; reading them never fails (events.md 1.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostParams {
    /// Model of every event in the body, or the text that names none (empty when missing).
    pub model: Result<Model, String>,
    /// The body is an Avro container.
    pub avro: bool,
    /// The answer comes only after the sync; here every answer does.
    pub sync: bool,
    /// The answer lists the client's events in their final form.
    pub include_ok: bool,
    /// The plugin pause is started again.
    pub pause_plugins: bool,
}

impl PostParams {
    /// Reads the query of a POST; true is exactly `true` or `1`, the first occurrence counts.
    pub fn parse(pairs: &[(String, String)]) -> PostParams {
        let first = |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let literal = |name: &str| matches!(first(name), Some("true" | "1"));
        let model = first("model").unwrap_or_default();
        PostParams {
            model: Model::parse(model).ok_or_else(|| shown(model)),
            avro: literal("avro-format"),
            sync: literal("sync"),
            include_ok: literal("include_ok"),
            pause_plugins: literal("pause_plugins"),
        }
    }
}

/// The query as it came, asked by name; a current name wins over its alias.
#[derive(Clone, Copy)]
struct Query<'a> {
    pairs: &'a [(String, String)],
}

impl<'a> Query<'a> {
    /// The first value of that name; an empty one counts as absent.
    fn first(self, wanted: &str) -> Option<&'a str> {
        let (_, value) = self.pairs.iter().find(|(name, _)| name == wanted)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of `name` or else of its alias, with the name that the client used.
    fn named(self, name: &'static str, alias: Option<&'static str>) -> Option<(&'static str, &'a str)> {
        let used = |name: &'static str| self.first(name).map(|value| (name, value));
        used(name).or_else(|| alias.and_then(used))
    }

    /// Every value of a repeatable parameter or else of its alias, with the name that the client used.
    fn repeated(
        self,
        name: &'static str,
        alias: Option<&'static str>,
    ) -> Result<(&'static str, Vec<&'a str>), BadParam> {
        let used = |wanted: &'static str| -> Vec<&'a str> {
            self.pairs.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect()
        };
        let (name, values) = match (used(name), alias) {
            (values, Some(alias)) if values.is_empty() => (alias, used(alias)),
            (values, _) => (name, values),
        };
        if values.len() > REPEATS_MAX {
            return Err(BadParam::new(name, format_args!("given {} times, at most {REPEATS_MAX}", values.len())));
        }
        Ok((name, values))
    }

    fn flag(self, name: &'static str, alias: Option<&'static str>) -> Result<bool, BadParam> {
        match self.named(name, alias) {
            None => Ok(false),
            Some((name, value)) => parse_bool(value).ok_or_else(|| {
                let reason = format_args!("parsing \"{}\": neither true nor false", shown(value)).to_string();
                BadParam::new(name, reason)
            }),
        }
    }

    fn integer(self, name: &'static str, alias: Option<&'static str>) -> Result<Option<i64>, BadParam> {
        let Some((name, value)) = self.named(name, alias) else { return Ok(None) };
        let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
        let what = if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            "not an integer"
        } else {
            match value.parse() {
                Ok(number) => return Ok(Some(number)),
                Err(_) => "out of range",
            }
        };
        Err(BadParam::new(name, format_args!("parsing \"{}\": {what}", shown(value))))
    }

    fn text(self, name: &'static str) -> Result<String, BadParam> {
        let value = self.first(name).unwrap_or_default();
        check_length(name, value)?;
        Ok(value.to_owned())
    }

    /// `r-expedite`, `r-live`, `r-historic`, with the defaults of old clients that know none of them.
    fn flows(self, model: Model) -> Result<[bool; 3], BadParam> {
        let binary = model == Model::Binary;
        let expedite = self.flag("r-expedite", None)?;
        if expedite && !binary {
            return Err(BadParam::plain("can only r-expedite with binary events"));
        }
        let live = self.flag("r-live", None)?;
        let historic = match self.first("r-historic") {
            Some(_) => self.flag("r-historic", None)?,
            None => self.first("ignore-historic").is_some() && !self.flag("ignore-historic", None)?,
        };
        let old_client = || {
            OLD_ONLY_NAMES.iter().any(|name| self.first(name).is_some())
                && ["r-expedite", "r-live", "r-historic"].iter().all(|name| self.first(name).is_none())
        };
        if old_client() {
            return Ok([binary, true, !self.flag("ignore-historic", None)?]);
        }
        if !(expedite || live || historic) {
            return Err(BadParam::plain("requires at least one of r-expedite, r-live or r-historic"));
        }
        Ok([expedite, live, historic])
    }

    /// Upper and lower bound of the content size; zero and negative numbers are off.
    fn content_sizes(self) -> Result<[Option<u64>; 2], BadParam> {
        let bound = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        let under = bound(self.integer("r-under-content-size", Some("f-max-content-size"))?);
        let over = bound(self.integer("r-over-content-size", Some("f-min-content-size"))?);
        match (under, over) {
            (Some(most), Some(least)) if least > most => {
                let reason = format_args!("{least} is above r-under-content-size {most}").to_string();
                Err(BadParam::new("r-over-content-size", reason))
            }
            bounds => Ok(bounds.into()),
        }
    }

    /// Actions wanted (the pair of `r-content` included) and actions not wanted.
    fn actions(self, require_content: bool) -> Result<[Vec<Action>; 2], BadParam> {
        let (wanted_name, wanted) = self.repeated("r-action", Some("f-allow-event-type"))?;
        let (denied_name, denied) = self.repeated("d-action", Some("f-deny-event-type"))?;
        if require_content && !(wanted.is_empty() && denied.is_empty()) {
            return Err(BadParam::plain("cannot combine r-action with r-content or d-action"));
        }
        let mut wanted = parse_actions(wanted_name, &wanted)?;
        if require_content {
            wanted = vec![Action::Sourced, Action::Extracted];
        }
        Ok([wanted, parse_actions(denied_name, &denied)?])
    }

    fn sources(self) -> Result<Vec<String>, BadParam> {
        let (name, values) = self.repeated("r-source", None)?;
        values.iter().try_for_each(|value| check_length(name, value))?;
        let total: usize = values.iter().map(|value| value.len() + 1).sum();
        if total > SOURCES_MAX_BYTES {
            return Err(BadParam::new(name, format_args!("{total} bytes together, at most {SOURCES_MAX_BYTES}")));
        }
        Ok(values.into_iter().map(str::to_owned).collect())
    }

    /// Labels with their file format prefixes; the last value of a label counts, one without any piece is ignored.
    fn streams(self) -> Result<BTreeMap<String, Vec<String>>, BadParam> {
        let (name, values) = self.repeated("r-streams", Some("f-data-type"))?;
        let mut streams = BTreeMap::new();
        for value in values {
            check_length(name, value)?;
            let mut pieces = value.split(',').filter(|piece| !piece.is_empty()).map(str::to_owned);
            if let Some(label) = pieces.next() {
                streams.insert(label, pieces.collect());
            }
        }
        Ok(streams)
    }
}

/// The spellings that upstream takes for a boolean.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn parse_actions(name: &str, values: &[&str]) -> Result<Vec<Action>, BadParam> {
    let parse = |value: &&str| {
        let reason = || format!("not a binary action: {}", shown(value));
        Action::parse(value).ok_or_else(|| BadParam::new(name, reason()))
    };
    values.iter().map(parse).collect()
}

fn wait(deadline_secs: Option<i64>, limits: &Limits) -> Duration {
    let secs = deadline_secs.map_or(limits.default_wait_secs, |secs| u64::try_from(secs).unwrap_or(0));
    Duration::from_secs(secs).min(DEADLINE_MAX)
}

fn check_length(name: &str, value: &str) -> Result<(), BadParam> {
    if value.len() > TEXT_MAX_BYTES {
        return Err(BadParam::new(name, format_args!("{} bytes, at most {TEXT_MAX_BYTES}", value.len())));
    }
    Ok(())
}

/// A client's text as far as an error message repeats it.
fn shown(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
