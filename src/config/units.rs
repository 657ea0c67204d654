//! Sizes, durations and addresses as people write them in `appliance.toml`.
//!
//! Called by the sections of [`Config`](super::Config) through serde and by the upstream environment names.
//! Every message says what is allowed, because it ends up in front of the operator.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const SIZE_ALLOWED: &str = "a size: a whole number of bytes, optionally followed by B, kB, MB, GB, TB, PB, EB, K, M, G, T, P, E (powers of 1000) \
     or KiB .. EiB, Ki .. Ei (powers of 1024), at most 9223372036854775807 bytes";
const DURATION_ALLOWED: &str = "a duration: a whole number followed by ms, s, m, h or d, for example \"5s\" or \"7d\"";
const ADDRESS_ALLOWED: &str =
    "an address and port, for example \"127.0.0.1:8111\", \"[::1]:8111\" or \"localhost:8111\"";

/// Binary suffixes first: the largest that divides a size is how the size is printed.
const BINARY: [(&str, u64); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const DECIMAL: [(&str, u64); 6] = [
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
];
/// Largest size that is also a TOML integer, so that every printed configuration can be read back.
const SIZE_MAX: u64 = 9_223_372_036_854_775_807;

/// Bytes that `text` stands for; suffixes are case-sensitive (`cli.md` section 3, `events.md` section 8).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| SIZE_ALLOWED.to_owned())?;
    let unit = size_unit(suffix.trim_start()).ok_or_else(|| SIZE_ALLOWED.to_owned())?;
    number.checked_mul(unit).filter(|bytes| *bytes <= SIZE_MAX).ok_or_else(|| SIZE_ALLOWED.to_owned())
}

fn size_unit(suffix: &str) -> Option<u64> {
    match suffix {
        "" | "B" => return Some(1),
        "kB" => return Some(1_000),
        // Kilo is `kB` or `K`, as upstream has it: neither `KB` nor `k`.
        "KB" => return None,
        _ => {}
    }
    let bare = suffix.strip_suffix('B').unwrap_or(suffix);
    BINARY.iter().chain(&DECIMAL).find(|(name, _)| *name == bare).map(|(_, unit)| *unit)
}

/// `bytes` with the largest suffix that loses nothing; a binary one unless it takes more digits than a decimal one.
pub fn format_size(bytes: u64) -> String {
    let fits = |units: &'static [(&str, u64)]| {
        units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)).map(|(name, unit)| (bytes / unit, name))
    };
    match (fits(&BINARY), fits(&DECIMAL)) {
        (Some((binary, _)), Some((decimal, name))) if decimal < binary => format!("{decimal}{name}B"),
        (Some((number, name)), _) => format!("{number}{name}"),
        (None, _) => bytes.to_string(),
    }
}

/// The duration that `text` stands for.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| DURATION_ALLOWED.to_owned())?;
    let milliseconds = match unit.trim_start() {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).ok_or_else(|| DURATION_ALLOWED.to_owned())
}

/// `duration` with the largest unit that loses nothing (whole milliseconds are kept).
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
        .iter()
        .find(|(_, unit)| milliseconds > 0 && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || if milliseconds == 0 { "0s".to_owned() } else { format!("{milliseconds}ms") },
            |(name, unit)| format!("{}{name}", milliseconds / unit),
        )
}

/// An address to listen on; `localhost` is 127.0.0.1, and `:8111` (as upstream writes it) is every IPv4 address.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| ADDRESS_ALLOWED.to_owned())?;
    let port: u16 = port.parse().map_err(|_| ADDRESS_ALLOWED.to_owned())?;
    match host {
        "localhost" => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        "" => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        _ => Err(ADDRESS_ALLOWED.to_owned()),
    }
}

/// Where a listener listens, or that it is switched off (`"off"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// The listener is not wanted.
    Off,
    /// The listener is wanted at this address.
    At(SocketAddr),
}

impl Listen {
    /// The address, or `None` for a listener that is switched off.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(ADDRESS_ALLOWED))?;
        if text == "off" {
            return Ok(Self::Off);
        }
        parse_address(&text).map(Self::At).map_err(|allowed| D::Error::custom(format!("{allowed}, or \"off\"")))
    }
}

/// What a size or a duration may look like before it is understood.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Written {
    Number(u64),
    Text(String),
}

/// `#[serde(with = "units::size")]` for a `u64` of bytes.
pub(super) mod size {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_size(*bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(SIZE_ALLOWED))? {
            Written::Number(bytes) => Ok(bytes),
            Written::Text(text) => parse_size(&text).map_err(D::Error::custom),
        }
    }
}

/// `#[serde(with = "units::optional_duration")]` for a [`Duration`] that need not be given.
pub(super) mod optional_duration {
    use super::{Duration, format_duration, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_str(&format_duration(*value)),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Some).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "units::duration")]` for a [`Duration`].
pub(super) mod duration {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*value))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        // A bare number is refused: nobody can tell seconds from milliseconds.
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(DURATION_ALLOWED))?;
        parse_duration(&text).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "units::address")]` for a [`SocketAddr`].
pub(super) mod address {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(value: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(ADDRESS_ALLOWED))?;
        parse_address(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_decimal_and_binary_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("3Mi", 3 << 20),
            ("3MiB", 3 << 20),
            ("3 MiB", 3 << 20),
            ("2kB", 2_000),
            ("2K", 2_000),
            ("5GB", 5_000_000_000),
            ("7Ei", 7 << 60),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused() {
        for text in ["", "Mi", "-1", "1.5Gi", "3mi", "3KB", "3k", "8Ei", "99999999999999999999", "3Mi ", "3BB"] {
            assert_eq!(parse_size(text), Err(SIZE_ALLOWED.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_printed_size_reads_back() {
        for bytes in [0, 1, 1000, 1024, 1025, 3 << 20, 5_000_000_000, SIZE_MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_size(8 << 20), "8Mi");
        assert_eq!((format_size(128_000_000), format_size(64_000)), ("128MB".into(), "64000".into()));
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("30m"), Ok(Duration::from_secs(1_800)));
        assert_eq!(parse_duration("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for text in ["5", "", "s", "1.5s", "-1s", "5 sec", "99999999999999999d"] {
            assert_eq!(parse_duration(text), Err(DURATION_ALLOWED.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_printed_duration_reads_back() {
        for milliseconds in [0, 1, 1_500, 60_000, 86_400_000, 90_000] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
    }

    #[test]
    fn addresses_need_a_port() {
        assert_eq!(parse_address("localhost:1"), Ok(SocketAddr::from(([127, 0, 0, 1], 1))));
        assert_eq!(parse_address(":8111"), Ok(SocketAddr::from(([0, 0, 0, 0], 8111))));
        assert_eq!(parse_address("[::1]:8111").map(|a| a.is_ipv6()), Ok(true));
        for text in ["127.0.0.1", "8111", "host.example:1", "127.0.0.1:99999", ""] {
            assert_eq!(parse_address(text), Err(ADDRESS_ALLOWED.to_owned()), "{text}");
        }
    }
}
