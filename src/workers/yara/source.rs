//! The text of rule files: where each rule begins and ends, what is included and imported, line by line.
//!
//! Follows the lexer of the library as far as it has to: comments, texts, regular expressions (a `/` that begins no
//! comment always begins one), hex strings. What the library will refuse may be read in any way here.

use std::borrow::Cow;
use std::ops::Range;

/// Fields of module `pe` that stay empty, because the build has no X.509 reader.
const SIGNATURE_FIELDS: [&str; 3] = ["signatures", "number_of_signatures", "is_signed"];

/// Why a file is of no use, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// In words.
    pub reason: String,
}

/// One rule of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleText {
    pub(super) name: String,
    /// From its first modifier to its closing brace.
    pub(super) place: Range<usize>,
    /// It looks at the signatures of a PE file.
    pub(super) signatures: bool,
}

/// An `include` outside of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Include {
    /// From the word to the closing quote.
    pub(super) place: Range<usize>,
    pub(super) path: String,
}

/// What is found in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) rules: Vec<RuleText>,
    pub(super) includes: Vec<Include>,
}

/// Line that holds the byte at `place`, from 1.
pub(super) fn line_of(text: &[u8], place: usize) -> usize {
    memchr::memchr_iter(b'\n', text.get(..place).unwrap_or(text)).count() + 1
}

/// The text of a file as UTF-8, with the same lines and the same meaning: other bytes become escapes in texts and regular
/// expressions, where they count, and replacement characters in comments and metadata.
///
/// # Errors
/// There is a NUL byte, or metadata that no escape can make UTF-8.
pub(super) fn normalized(bytes: &[u8]) -> Result<String, Problem> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if let Some(place) = memchr::memchr(0, bytes) {
        return Err(Problem { line: line_of(bytes, place), reason: "NUL byte".into() });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => escaped(bytes),
    };
    for token in Tokens::new(text.as_bytes()).filter(|token| token.kind == Kind::Text && token.meta) {
        let held = text.as_bytes().get(token.place.clone()).unwrap_or_default();
        if held.contains(&b'\\') && std::str::from_utf8(&unescaped(held)).is_err() {
            let line = line_of(text.as_bytes(), token.place.start);
            return Err(Problem { line, reason: "metadata that is not UTF-8".into() });
        }
    }
    Ok(text)
}

/// Text that is no UTF-8 as such.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut done = 0;
    for token in Tokens::new(bytes) {
        if !matches!(token.kind, Kind::Text | Kind::Regex) || token.meta {
            continue;
        }
        text.push_str(&String::from_utf8_lossy(bytes.get(done..token.place.start).unwrap_or_default()));
        let held = bytes.get(token.place.clone()).unwrap_or_default();
        for chunk in held.utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                // A backslash that is there already begins the escape.
                let escapes = text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2;
                text.push_str(&format!("{}x{byte:02x}", if escapes == 0 { "\\" } else { "" }));
            }
        }
        done = token.place.end;
    }
    text.push_str(&String::from_utf8_lossy(bytes.get(done..).unwrap_or_default()));
    text
}

/// The bytes that a text between quotes stands for.
fn unescaped(quoted: &[u8]) -> Cow<'_, [u8]> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        match rest {
            [b'x', high, low, behind @ ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok();
                bytes.extend(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()));
                rest = behind;
            }
            [escaped, behind @ ..] => {
                bytes.push(*escaped);
                rest = behind;
            }
            [] => {}
        }
    }
    Cow::Owned(bytes)
}

/// Rules and includes of a text.
pub(super) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let word = |token: &Token| text.get(token.place.clone()).unwrap_or_default();
    let mut modifiers: Option<usize> = None;
    let mut rule: Option<RuleText> = None;
    // The two tokens before this one.
    let (mut before, mut last): (Option<Token>, Option<Token>) = (None, None);
    for token in Tokens::new(text.as_bytes()) {
        let said = |token: &Option<Token>| token.as_ref().map_or("", |token| word(token));
        match token.kind {
            Kind::Word if token.depth == 0 => match (said(&last), word(&token)) {
                ("rule", name) => {
                    let start = modifiers.take().or(last.as_ref().map(|last| last.place.start));
                    let place = start.unwrap_or(token.place.start)..token.place.end;
                    rule = Some(RuleText { name: name.to_owned(), place, signatures: false });
                }
                (_, "private" | "global") if rule.is_none() => modifiers = modifiers.or(Some(token.place.start)),
                _ => {}
            },
            Kind::Text if token.depth == 0 && said(&last) == "include" => {
                let start = last.as_ref().map_or(token.place.start, |last| last.place.start);
                let path = word(&token).trim_matches('"').to_owned();
                parsed.includes.push(Include { place: start..token.place.end, path });
            }
            Kind::Word if SIGNATURE_FIELDS.contains(&word(&token)) => {
                if said(&last) == "." && said(&before) == "pe" {
                    rule.iter_mut().for_each(|rule| rule.signatures = true);
                }
            }
            Kind::Sign if token.depth == 0 && word(&token) == "}" => {
                if let Some(mut rule) = rule.take() {
                    rule.place.end = token.place.end;
                    parsed.rules.push(rule);
                }
                modifiers = None;
            }
            Kind::Word | Kind::Text | Kind::Regex | Kind::Sign => {}
        }
        before = last.replace(token);
    }
    parsed
}

/// The text for the compiler: the conditions of rules that look at signatures are never true, because the library does not
/// know those fields here and would refuse the whole file. Lines stay where they are.
pub(super) fn without_signatures<'a>(text: &'a str, parsed: &Parsed) -> Cow<'a, str> {
    let mut rules = parsed.rules.iter().filter(|rule| rule.signatures).peekable();
    if rules.peek().is_none() {
        return Cow::Borrowed(text);
    }
    let mut compiled = String::with_capacity(text.len());
    let mut done = 0;
    for rule in rules {
        let held = text.get(rule.place.clone()).unwrap_or_default();
        let Some((strings, start)) = condition(held) else { continue };
        let (start, end) = (rule.place.start + start, rule.place.end - 1);
        compiled.push_str(text.get(done..start).unwrap_or_default());
        compiled.push_str(if strings { " false and any of them " } else { " false " });
        let lines = text.get(start..end).unwrap_or_default().matches('\n').count();
        compiled.extend(std::iter::repeat_n('\n', lines));
        done = end;
    }
    compiled.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(compiled)
}

/// Whether a rule has patterns, and where what follows `condition:` begins.
fn condition(rule: &str) -> Option<(bool, usize)> {
    let mut last = "";
    let mut strings = false;
    for token in Tokens::new(rule.as_bytes()).filter(|token| token.depth == 1) {
        let word = rule.get(token.place.clone()).unwrap_or_default();
        match (last, word) {
            ("strings", ":") => strings = true,
            ("condition", ":") => return Some((strings, token.place.end)),
            _ => last = word,
        }
    }
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Letters, digits and `_`; with `$` and its like before them, if that is there.
    Word,
    /// With its quotes.
    Text,
    /// With its slashes.
    Regex,
    /// Any other character.
    Sign,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    kind: Kind,
    place: Range<usize>,
    /// Braces that are open around it; a closing one is outside.
    depth: usize,
    /// In the `meta` part of a rule.
    meta: bool,
}

/// The tokens of a text; comments are none.
struct Tokens<'a> {
    text: &'a [u8],
    place: usize,
    depth: usize,
    meta: bool,
    /// The last word in a rule, which names a part if a colon follows.
    part: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, place: 0, depth: 0, meta: false, part: b"" }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.place..).unwrap_or_default()
    }

    /// Behind blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let length = match rest {
                [b' ' | b'\t' | b'\r' | b'\n', ..] => 1,
                [b'/', b'/', ..] => memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
                [b'/', b'*', body @ ..] => memchr::memmem::find(body, b"*/").map_or(rest.len(), |end| end + 4),
                _ => return,
            };
            self.place += length;
        }
    }

    /// Length of what goes on to an unescaped `end` on the same line.
    fn delimited(rest: &[u8], end: u8) -> usize {
        let mut escaped = false;
        for (place, byte) in rest.iter().enumerate().skip(1) {
            match *byte {
                b'\n' => return place,
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                byte if byte == end => return place + 1,
                _ => {}
            }
        }
        rest.len()
    }
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip();
        let rest = self.rest();
        let first = rest.first()?;
        // In a hex string there are neither texts nor regular expressions.
        let plain = self.depth < 2;
        let words = |from: usize| rest.iter().skip(from).take_while(|byte| is_word(byte)).count();
        let (kind, length) = match first {
            b'"' if plain => (Kind::Text, Self::delimited(rest, b'"')),
            b'/' if plain => (Kind::Regex, Self::delimited(rest, b'/')),
            b'$' | b'#' | b'@' | b'!' => (Kind::Word, 1 + words(1)),
            byte if is_word(byte) => (Kind::Word, words(0)),
            _ => (Kind::Sign, 1),
        };
        let place = self.place..self.place + length;
        self.place = place.end;
        match first {
            b'}' => self.depth = self.depth.saturating_sub(1),
            b':' if self.depth == 1 => match self.part {
                b"meta" => self.meta = true,
                b"strings" | b"condition" => self.meta = false,
                _ => {}
            },
            _ => {}
        }
        self.meta &= self.depth > 0;
        let token = Token { kind, place: place.clone(), depth: self.depth, meta: self.meta };
        self.part = self.text.get(place).unwrap_or_default();
        if *first == b'{' && kind == Kind::Sign {
            self.depth += 1;
        }
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(String, String)> {
        let rules = parse(text).rules;
        rules.into_iter().map(|rule| (rule.name, text[rule.place].to_owned())).collect()
    }

    #[test]
    fn a_rule_goes_from_its_modifiers_to_its_brace() {
        let one = "private global rule one : a b { condition: true }";
        let two = "rule two {\n  strings:\n    $a = { 41 ?? [2-3] (42|43) }\n  condition: $a }";
        let found = texts(&format!("import \"pe\"\n{one} // rule x {{\n/* rule y {{ */ {two}\n"));
        assert_eq!(found, [("one".into(), one.into()), ("two".into(), two.into())]);
    }

    #[test]
    fn braces_in_texts_expressions_and_comments_are_none() {
        let rule = r#"rule a { meta: x = "}\"}" strings: $r = /a\/}{[}]/is $h = { 41 /* } */ 42 // }
            } condition: $r /* } */ or $h }"#;
        assert_eq!(texts(&format!("{rule} rule b {{condition:false}}")).len(), 2);
        assert_eq!(texts(rule), [("a".into(), rule.into())]);
    }

    #[test]
    fn a_rule_without_end_is_none() {
        assert_eq!(texts("rule a { condition: true"), []);
        assert_eq!(texts("rule a { strings: $a = \"x\n condition: $a } rule b { condition: true }").len(), 2);
    }

    #[test]
    fn includes_are_found_outside_of_rules() {
        let text = "include \"a/b.yar\"\nrule include_x { meta: include = \"no\" condition: true } include\t\"c\"";
        let includes = parse(text).includes;
        let found: Vec<_> =
            includes.iter().map(|include| (include.path.as_str(), &text[include.place.clone()])).collect();
        assert_eq!(found, [("a/b.yar", "include \"a/b.yar\""), ("c", "include\t\"c\"")]);
    }

    #[test]
    fn rules_that_look_at_signatures_are_known() {
        let text = "rule a { condition: pe.number_of_signatures > 0 } rule b { condition: pe.imphash() == \"x\" }
            rule c { strings: $signatures = \"pe.is_signed\" condition: $signatures } rule d { condition: pe . is_signed }";
        let found: Vec<_> = parse(text).rules.into_iter().map(|rule| rule.signatures).collect();
        assert_eq!(found, [true, false, false, true]);
    }

    #[test]
    fn conditions_that_look_at_signatures_are_never_true_for_the_compiler() {
        let text =
            "rule a { condition: true }\nrule b { strings: $a = \"condition:\" condition: $a and\n\npe.is_signed }
rule c { condition: pe.signatures[0].issuer == \"}\" } rule d { condition: true }";
        let compiled = without_signatures(text, &parse(text));
        let expected =
            "rule a { condition: true }\nrule b { strings: $a = \"condition:\" condition: false and any of them \n\n}
rule c { condition: false } rule d { condition: true }";
        assert_eq!(compiled, expected);
        assert!(matches!(without_signatures("rule a {", &parse("rule a {")), Cow::Borrowed(_)));
    }

    #[test]
    fn other_bytes_become_escapes_where_they_count() {
        let text = b"// \xe4\nrule a { meta: author = \"J\xfcrgen\" strings: $a = \"\xe4\xf6\" $b = /\xe4\\\xf6/ condition: all of them }";
        let text = normalized(text).unwrap();
        assert_eq!(
            text,
            "// \u{fffd}\nrule a { meta: author = \"J\u{fffd}rgen\" strings: $a = \"\\xe4\\xf6\" $b = /\\xe4\\xf6/ condition: all of them }"
        );
        assert_eq!(normalized("\u{feff}rule \"ä\"".as_bytes()).unwrap(), "rule \"ä\"");
    }

    #[test]
    fn what_cannot_be_carried_is_refused_with_its_line() {
        assert_eq!(normalized(b"a\nb\0").unwrap_err().line, 2);
        let refused = normalized(b"rule a {\n meta:\n x = \"\\xff\" condition: true }").unwrap_err();
        assert_eq!(refused, Problem { line: 3, reason: "metadata that is not UTF-8".into() });
        assert!(normalized(b"rule a { meta: x = \"\\xc3\\xa4\" strings: $a = \"\\xff\" condition: $a }").is_ok());
    }
}
