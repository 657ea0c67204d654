//! Paths and queries, decoded.
//!
//! warp decodes neither path parameters nor tells repeated query names apart the way the contract needs it.

/// A query name or value whose decoded bytes are not UTF-8. Such a request is refused: replacing the bytes could make
/// two names of consumers equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotUtf8 {
    /// The name of the parameter, as far as it can be shown.
    pub(super) name: String,
}

/// Splits and decodes a query, keeping order and repeats. `+` is a space; a `%` that two hex digits do not follow stands
/// for itself; a name without `=` has the empty value.
///
/// # Errors
/// [`NotUtf8`] for the first name or value that is not.
pub(super) fn parse_query(query: &str) -> Result<Vec<(String, String)>, NotUtf8> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name, true), decode(value, true));
            match (String::from_utf8(name), String::from_utf8(value)) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                (Ok(name), Err(_)) => Err(NotUtf8 { name }),
                (Err(name), _) => Err(NotUtf8 { name: String::from_utf8_lossy(name.as_bytes()).into_owned() }),
            }
        })
        .collect()
}

/// The first value of a name; names that are absent and values that are empty are both `None`.
pub(super) fn first<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

/// Splits a path at its slashes and decodes each segment. Bytes that are not UTF-8 become U+FFFD, which no name that is
/// accepted anywhere contains.
pub(super) fn path_segments(path: &str) -> Vec<String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').map(|segment| String::from_utf8_lossy(&decode(segment, false)).into_owned()).collect()
}

fn decode(text: &str, plus_is_space: bool) -> Vec<u8> {
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        let escaped = if byte == b'%' { rest.split_first_chunk::<2>().and_then(escape) } else { None };
        match (escaped, byte) {
            (Some((value, rest)), _) => {
                decoded.push(value);
                bytes = rest;
            }
            (None, b'+') if plus_is_space => decoded.push(b' '),
            (None, byte) => decoded.push(byte),
        }
    }
    decoded
}

fn escape<'a>((digits, rest): (&[u8; 2], &'a [u8])) -> Option<(u8, &'a [u8])> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    let value = u8::try_from(high? * 16 + low?).ok()?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        parse_query(query).unwrap()
    }

    #[test]
    fn queries_keep_order_and_repeats_and_decode() {
        let got = pairs("r-streams=content%2Cimage/&&a=b+c&r-streams=x=y&flag&%61=%C3%A9");
        let want = [("r-streams", "content,image/"), ("a", "b c"), ("r-streams", "x=y"), ("flag", ""), ("a", "é")];
        assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(first(&got, "r-streams"), Some("content,image/"));
        assert_eq!(first(&got, "flag"), None);
        assert!(pairs("").is_empty());
    }

    #[test]
    fn broken_escapes_stand_for_themselves() {
        assert_eq!(pairs("a=100%&b=%zz&c=%4"), pairs("a=100%25&b=%25zz&c=%254"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_by_name() {
        assert_eq!(parse_query("a=1&name=%ff"), Err(NotUtf8 { name: "name".to_owned() }));
        assert_eq!(parse_query("%ff=1"), Err(NotUtf8 { name: "\u{fffd}".to_owned() }));
    }

    #[test]
    fn path_segments_are_decoded_one_by_one() {
        assert_eq!(path_segments("/api/a%2Fb/c+d/%ff"), ["api", "a/b", "c+d", "\u{fffd}"]);
        assert_eq!(path_segments("/"), [""]);
        assert_eq!(path_segments(""), [""]);
    }
}
