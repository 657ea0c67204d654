//! `GET /metrics`: the Prometheus text format, version 0.0.4.

use http::StatusCode;
use warp::reply::Response;

use super::Services;
use super::router::reply;
use crate::admin::GroupSummary;

/// Prints every metric, with the backlog of every group as it is now.
pub(super) async fn page(services: &Services) -> Response {
    let groups = match services.admin.clone().zip(Some(services.metrics.clone())) {
        Some((admin, metrics)) => {
            let look = move || {
                admin.measure(&metrics);
                admin.backlog()
            };
            match tokio::task::spawn_blocking(look).await {
                Ok(Ok(groups)) => groups,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the backlog of groups could not be read");
                    Vec::new()
                }
                Err(stopped) => {
                    tracing::error!(%stopped, "the backlog of groups could not be read");
                    Vec::new()
                }
            }
        }
        None => Vec::new(),
    };
    if let Some(workers) = &services.workers {
        workers.measure(&services.metrics, azulite_storage::clock::now_ms());
    }
    let mut text = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode_registry(&mut text, services.metrics.registry()) {
        tracing::error!(%error, "the metrics could not be printed");
        return super::error::internal("metrics cannot be printed", &error.to_string());
    }
    let mut page = as_version_0_0_4(&text);
    page.push_str(&backlog(&groups));
    reply(StatusCode::OK, "text/plain; version=0.0.4", page)
}

/// Groups come and go, so that their series are made for each page; their number is bounded by whoever lists them.
fn backlog(groups: &[GroupSummary]) -> String {
    let mut page = String::new();
    if !groups.is_empty() {
        page.push_str("# HELP azulite_consumer_lag Events between the position of a group and the end.\n");
        page.push_str("# TYPE azulite_consumer_lag gauge\n");
    }
    for GroupSummary { name, lag, .. } in groups {
        let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        page.push_str(&format!("azulite_consumer_lag{{group=\"{name}\"}} {lag}\n"));
    }
    page
}

/// The library writes OpenMetrics; the older format has no type `unknown`, which our counters carry so that their names
/// are not changed.
fn as_version_0_0_4(text: &str) -> String {
    let mut page = String::with_capacity(text.len());
    for line in text.lines() {
        match line.strip_suffix(" unknown").filter(|line| line.starts_with("# TYPE ")) {
            Some(start) => page.extend([start, " counter\n"]),
            None => page.extend([line, "\n"]),
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use std::time::Duration;

    #[test]
    fn group_names_cannot_break_a_line() {
        let group = |name: &str, lag| GroupSummary { name: name.to_owned(), partitions: 1, lag };
        let page = backlog(&[group("t1-azul-p", 3), group("a\"b\\c\nd", 0)]);
        let lines: Vec<&str> = page.lines().skip(2).collect();
        let wanted = [r#"azulite_consumer_lag{group="t1-azul-p"} 3"#, r#"azulite_consumer_lag{group="a\"b\\c\nd"} 0"#];
        assert_eq!(lines, wanted);
        assert_eq!(backlog(&[]), "");
    }

    #[test]
    fn names_are_exposed_exactly_as_dashboards_ask_for_them() {
        let metrics = Metrics::new();
        metrics.events_fetched.add(["Carver \"x\"", "binary"], 3);
        metrics.status_published.inc(["Carver", "completed"]);
        metrics.data_uploaded_bytes.add(5);
        metrics.kafka_produced_bytes.at(["azul.t1.lab.binary.sourced"]).add(7);
        metrics.consume_duration.observe(["metadata"], Duration::from_millis(2));
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, metrics.registry()).unwrap();
        let page = as_version_0_0_4(&text);
        for line in [
            "# TYPE dispatcher_events_fetched_total counter",
            "dispatcher_events_fetched_total{plugin=\"Carver \\\"x\\\"\",entity=\"binary\"} 3",
            "# TYPE dispatcher_events_status_published counter",
            "dispatcher_events_status_published{plugin=\"Carver\",status=\"completed\"} 1",
            "dispatcher_data_uploaded_bytes_total 5",
            "# TYPE dispatcher_kafka_produced_message_bytes_total gauge",
            "dispatcher_kafka_produced_message_bytes_total{topic=\"azul.t1.lab.binary.sourced\"} 7",
            "# TYPE dispatcher_events_consume_duration histogram",
            "dispatcher_events_consume_duration_bucket{le=\"0.01\",stage=\"metadata\"} 1",
            "dispatcher_events_consume_duration_bucket{le=\"0.001\",stage=\"metadata\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains("_total_total") && !page.contains("unknown"), "{page}");
    }
}
