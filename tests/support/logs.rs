//! The lines a server process writes, and which of them a test has to know about beforehand.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// All lines of one server over all of its restarts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Logs {
    /// Copies every line of `pipe` into this log until the pipe ends.
    pub(crate) fn follow(&self, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(&self.lines);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.lock().unwrap().push(without_colours(&text));
                line.clear();
            }
        })
    }

    /// Everything said so far.
    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Lines a person should look at that contain none of the `announced` texts.
    pub(crate) fn alarms(&self, announced: &[String]) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let unannounced = |line: &&String| !announced.iter().any(|text| line.contains(text.as_str()));
        lines.iter().filter(|line| is_alarm(line)).filter(unannounced).cloned().collect()
    }
}

/// ERROR and WARN lines in either log format, and panics.
fn is_alarm(line: &str) -> bool {
    let level = |word: &str| matches!(word.trim_end_matches(':'), "WARN" | "ERROR");
    line.contains("panicked at")
        || line.split_whitespace().take(3).any(level)
        || ["\"level\":\"WARN\"", "\"level\":\"ERROR\""].iter().any(|field| line.contains(field))
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, tail)| tail);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coloured_warning_is_an_alarm_and_an_info_line_about_warnings_is_not() {
        assert!(is_alarm(&without_colours("2026-01-02T03:04:05Z \u{1b}[33m WARN\u{1b}[0m azulite::x: odd")));
        assert!(is_alarm("{\"timestamp\":\"t\",\"level\":\"ERROR\",\"fields\":{}}"));
        assert!(!is_alarm("2026-01-02T03:04:05Z  INFO azulite: no WARN lines today"));
    }
}
