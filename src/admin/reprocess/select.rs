//! Which topics of the previous prefix are reprocessed, and what their records are. Contract events.md 7.1.

use crate::dispatcher::model::Model;
use crate::dispatcher::topic::{TopicRef, binary_topic, system_topic};

use super::{Profile, Request};

/// Whether the topic `name` is one of those that are asked for.
pub(super) fn wanted(request: &Request, name: &str) -> bool {
    let Some(rest) = behind_prefix(&request.previous_prefix, name) else { return false };
    if request.deny_topics.iter().any(|denied| denied == name) {
        return false;
    }
    match request.profile {
        Profile::Sources => {
            rest.split_once('.').is_some_and(|(source, rest)| !source.is_empty() && rest.starts_with("binary"))
        }
        Profile::System => rest
            .strip_prefix("system.")
            .is_some_and(|rest| request.include_system.iter().any(|included| rest.starts_with(included.as_str()))),
    }
}

fn behind_prefix<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix("azul.")?.strip_prefix(prefix)?.strip_prefix('.')
}

/// The model of the records of a wanted topic; `None` when no model is known by its name.
pub(super) fn model(request: &Request, name: &str) -> Option<Model> {
    match request.profile {
        Profile::Sources => Some(Model::Binary),
        Profile::System => TopicRef::parse(&request.previous_prefix, name)?.model(),
    }
}

/// The topic of the current prefix that holds what `name` holds in the previous one; older versions had topics that
/// have no counterpart.
pub(super) fn counterpart(request: &Request, topic_prefix: &str, name: &str) -> Option<String> {
    Some(match TopicRef::parse(&request.previous_prefix, name)? {
        TopicRef::Binary { source, action } => binary_topic(topic_prefix, source, action),
        TopicRef::System { name } => system_topic(topic_prefix, name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(profile: Profile) -> Request {
        Request { previous_prefix: "old".to_owned(), profile, ..Request::default() }
    }

    #[test]
    fn sources_are_all_binary_topics_of_the_prefix() {
        let request = Request { deny_topics: vec!["azul.old.b.binary.mapped".to_owned()], ..request(Profile::Sources) };
        for name in
            ["azul.old.a.binary", "azul.old.a.binary.data", "azul.old.b.binary.sourced", "azul.old.system.binary.x"]
        {
            assert!(wanted(&request, name), "{name}");
            assert_eq!(model(&request, name), Some(Model::Binary));
        }
        let others =
            ["azul.old.b.binary.mapped", "azul.old.system.status", "azul.older.a.binary", "azul.old.a.b.binary", "old"];
        for name in others {
            assert!(!wanted(&request, name), "{name}");
        }
    }

    #[test]
    fn system_topics_are_those_included() {
        let request = request(Profile::System);
        let found = |name: &str| wanted(&request, name).then(|| model(&request, name));
        assert_eq!(found("azul.old.system.delete"), Some(Some(Model::Delete)));
        assert_eq!(found("azul.old.system.insert"), Some(Some(Model::Insert)));
        assert_eq!(found("azul.old.system.expedite"), Some(Some(Model::Binary)));
        assert_eq!(found("azul.old.system.error"), Some(Some(Model::Binary)));
        assert_eq!(found("azul.old.system.insertion"), Some(None), "the list is of beginnings");
        assert_eq!(found("azul.old.system.status"), None);
        assert_eq!(found("azul.old.a.binary.sourced"), None);
    }

    #[test]
    fn counterparts_have_the_new_prefix() {
        let request = request(Profile::Sources);
        let counterpart = |name: &str| counterpart(&request, "new", name);
        assert_eq!(counterpart("azul.old.a.binary.sourced").as_deref(), Some("azul.new.a.binary.sourced"));
        assert_eq!(counterpart("azul.old.system.insert").as_deref(), Some("azul.new.system.insert"));
        assert_eq!(counterpart("azul.old.a.binary.data"), None);
    }
}
