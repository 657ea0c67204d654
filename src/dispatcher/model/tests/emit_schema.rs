//! What the server writes satisfies the emit schemas: a strict checker of the few keywords they use.

use serde_json::Value;

use super::super::{Model, Timestamp};
use super::{example, fixture_json, json, model, one};

/// What in `value` breaks the emit schema of `model`.
pub(super) fn problems(model: Model, value: &Value) -> Vec<String> {
    let root = fixture_json(&format!("json/{model}.emit.schema.json"));
    let mut checker = Checker { root: &root, problems: Vec::new() };
    checker.check("", &root, value);
    checker.problems
}

struct Checker<'a> {
    root: &'a Value,
    problems: Vec<String>,
}

impl<'a> Checker<'a> {
    fn check(&mut self, path: &str, schema: &'a Value, value: &Value) {
        for (keyword, wanted) in schema.as_object().unwrap() {
            let fine = match keyword.as_str() {
                "$ref" => {
                    let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    self.check(path, &self.root["$defs"][name], value);
                    true
                }
                "type" => has_type(wanted.as_str().unwrap(), value),
                "const" => value == wanted,
                "enum" => wanted.as_array().unwrap().contains(value),
                "minimum" => value.as_u64().is_some_and(|number| number >= wanted.as_u64().unwrap()),
                "maximum" => value.as_u64().is_some_and(|number| number <= wanted.as_u64().unwrap()),
                "format" => wanted == "date-time",
                // The one pattern there is: times as the server reads them.
                "pattern" => value.as_str().is_some_and(|text| Timestamp::parse(text).is_ok()),
                "required" => wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(&format!("{path}[{index}]"), wanted, item);
                    }
                    true
                }
                "properties" | "additionalProperties" => keyword == "properties" || self.members(path, schema, value),
                "$schema" | "$id" | "$defs" | "title" | "description" => true,
                other => panic!("keyword {other}"),
            };
            if !fine {
                self.problems.push(format!("{path}: {keyword}: {value}"));
            }
        }
    }

    fn members(&mut self, path: &str, schema: &'a Value, value: &Value) -> bool {
        let mut fine = true;
        for (name, member) in value.as_object().into_iter().flatten() {
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(property), _) => self.check(&format!("{path}.{name}"), property, member),
                (None, Value::Bool(allowed)) => fine &= allowed,
                (None, other) => self.check(&format!("{path}.{name}"), other, member),
            }
        }
        fine
    }
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("type {other}"),
    }
}

#[test]
fn accepted_examples_are_written_within_their_emit_schema() {
    let mut seen = 0;
    for entry in fixture_json("examples/index.json").as_array().unwrap() {
        if entry["verdict"] == "ok" {
            let file = entry["file"].as_str().unwrap();
            let event = one(model(&entry["model"]), &example(file.strip_suffix(".json").unwrap())).event.unwrap();
            assert_eq!(problems(event.model(), &json(&event)), Vec::<String>::new(), "{file}");
            seen += 1;
        }
    }
    assert_eq!(seen, 24);
}

#[test]
fn checker_notices_what_is_wrong() {
    let event = one(Model::Binary, &example("binary_sourced_with_content")).event.unwrap();
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut value = json(&event);
        change(&mut value);
        problems(Model::Binary, &value).len()
    };
    assert_eq!(wrong(&|_| {}), 0);
    assert_eq!(wrong(&|value| value["colour"] = "blue".into()), 1);
    assert_eq!(wrong(&|value| value["source"]["path"] = Value::Null), 1);
    assert_eq!(wrong(&|value| value["entity"]["datastreams"][0]["label"] = "x".into()), 1);
    assert_eq!(wrong(&|value| value["entity"]["info"] = "x".into()), 1);
    assert_eq!(wrong(&|value| value["model_version"] = 5.into()), 1);
    assert_eq!(wrong(&|value| value["source"]["references"]["n"] = 5.into()), 1);
    assert_eq!(wrong(&|value| drop(value.as_object_mut().unwrap().remove("flags"))), 1);
}
