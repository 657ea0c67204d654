//! Points in time as events carry them: an instant plus the offset it was written with.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

const SECONDS_PER_DAY: i64 = 86_400;
const NANOS_PER_SECOND: u32 = 1_000_000_000;
const ZERO_SECONDS: i64 = -62_135_596_800;

/// An instant to the nanosecond and the offset from UTC it arrived with.
///
/// Two timestamps are equal, and ordered, by instant alone; the offset only shows in the text forms. The default is the
/// zero time, 1 January of year 1 in UTC, which stands for "absent".
#[derive(Clone, Copy)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
    offset_minutes: i16,
}

/// Why a text is no timestamp (`models.md` section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`.
    #[error("not an RFC 3339 time such as 2006-01-02T15:04:05.5Z")]
    Form,
    /// The form is right but there is no such day, hour, minute, second or offset.
    #[error("no such date, time or zone offset")]
    Range,
}

impl Timestamp {
    /// The zero time, `0001-01-01T00:00:00Z`.
    pub const fn zero() -> Self {
        Self { seconds: ZERO_SECONDS, nanos: 0, offset_minutes: 0 }
    }

    /// True for the instant of [`Timestamp::zero`], whatever the offset.
    pub const fn is_zero(self) -> bool {
        self.seconds == ZERO_SECONDS && self.nanos == 0
    }

    /// A time in UTC from microseconds since 1970, as Avro stores it.
    pub fn from_micros(micros: i64) -> Self {
        let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
        Self { seconds: micros.div_euclid(1_000_000), nanos, offset_minutes: 0 }
    }

    /// A time in UTC from milliseconds since 1970, as the clock gives it.
    pub fn from_millis(millis: i64) -> Self {
        Self::from_micros(millis.saturating_mul(1000))
    }

    /// Microseconds since 1970, finer digits cut.
    pub fn micros(self) -> i64 {
        let below = i64::from(self.nanos / 1000);
        if self.seconds < 0 {
            (self.seconds + 1).saturating_mul(1_000_000).saturating_add(below - 1_000_000)
        } else {
            self.seconds.saturating_mul(1_000_000).saturating_add(below)
        }
    }

    /// Milliseconds since 1970, finer digits cut.
    pub fn millis(self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000))
    }

    /// Whole seconds since 1970, the fraction cut.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after [`Timestamp::seconds`].
    pub const fn subsecond_nanos(self) -> u32 {
        self.nanos
    }

    /// Minutes the written time is ahead of UTC.
    pub const fn offset_minutes(self) -> i16 {
        self.offset_minutes
    }

    /// What storage keeps of it: microseconds, in UTC.
    pub fn stored(self) -> Self {
        Self::from_micros(self.micros())
    }

    /// True when the time in UTC has a year from 1 to 9999, which is what readers can represent.
    pub fn is_representable(self) -> bool {
        (ZERO_SECONDS..253_402_300_800).contains(&self.seconds)
    }

    /// Reads an RFC 3339 time: capital `T` and `Z`, seconds, an optional fraction after `.` or `,` (digits beyond
    /// nanoseconds are cut), and a zone.
    ///
    /// # Errors
    /// [`TimestampError::Form`] for another form, [`TimestampError::Range`] for a day or time that does not exist.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let (date_time, rest) = text.as_bytes().split_first_chunk::<19>().ok_or(TimestampError::Form)?;
        let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1] = *date_time else {
            return Err(TimestampError::Form);
        };
        let year = i64::from(pair(y0, y1)?) * 100 + i64::from(pair(y2, y3)?);
        let (month, day) = (pair(m0, m1)?, pair(d0, d1)?);
        let (hour, minute, second) = (pair(h0, h1)?, pair(n0, n1)?, pair(s0, s1)?);
        let (nanos, zone) = fraction(rest)?;
        let offset_minutes = offset(zone)?;
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return Err(TimestampError::Range);
        }
        if hour > 23 || minute > 59 || second > 59 {
            return Err(TimestampError::Range);
        }
        let local = days_from_civil(year, month, day) * SECONDS_PER_DAY
            + i64::from(hour) * 3600
            + i64::from(minute) * 60
            + i64::from(second);
        Ok(Self { seconds: local - i64::from(offset_minutes) * 60, nanos, offset_minutes })
    }

    /// `YYYY-MM-DDThh:mm:ss` in the offset it arrived with: the form inside keys (section 7).
    pub fn key_form(self) -> String {
        let mut text = String::with_capacity(20);
        self.push_date_time(&mut text, '-', ':');
        text
    }

    /// `YYYY_MM_DDThh_mm_ssZ_00`, or the signed hour in place of `Z`: the form inside track links (section 7). The
    /// minutes of the offset are lost.
    pub fn link_form(self) -> String {
        let mut text = String::with_capacity(28);
        self.push_date_time(&mut text, '_', '_');
        if self.offset_minutes == 0 {
            text.push_str("Z_00");
        } else {
            let hours = self.offset_minutes.unsigned_abs() / 60;
            let sign = if self.offset_minutes < 0 { '-' } else { '+' };
            push(&mut text, format_args!("{sign}{hours:02}_00"));
        }
        text
    }

    /// Appends the RFC 3339 form: shortest fraction, `Z` for UTC.
    pub fn push_rfc3339(self, text: &mut String) {
        self.push_date_time(text, '-', ':');
        if self.nanos != 0 {
            let digits = format!(".{:09}", self.nanos);
            text.push_str(digits.trim_end_matches('0'));
        }
        if self.offset_minutes == 0 {
            text.push('Z');
        } else {
            let sign = if self.offset_minutes < 0 { '-' } else { '+' };
            let minutes = self.offset_minutes.unsigned_abs();
            push(text, format_args!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
    }

    fn push_date_time(self, text: &mut String, in_date: char, in_time: char) {
        let local = self.seconds.saturating_add(i64::from(self.offset_minutes) * 60);
        let (year, month, day) = civil_from_days(local.div_euclid(SECONDS_PER_DAY));
        let of_day = local.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        push(
            text,
            format_args!(
                "{year:04}{in_date}{month:02}{in_date}{day:02}T{hour:02}{in_time}{minute:02}{in_time}{second:02}"
            ),
        );
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::zero()
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }
}

impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.seconds, self.nanos).hash(state);
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(36);
        self.push_rfc3339(&mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn push(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String cannot fail");
}

fn pair(tens: u8, ones: u8) -> Result<u8, TimestampError> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        Ok((tens - b'0') * 10 + (ones - b'0'))
    } else {
        Err(TimestampError::Form)
    }
}

/// Nanoseconds of an optional fraction, and what follows it.
fn fraction(text: &[u8]) -> Result<(u32, &[u8]), TimestampError> {
    let Some((b'.' | b',', after)) = text.split_first() else {
        return Ok((0, text));
    };
    let count = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = after.split_at(count);
    if digits.is_empty() {
        return Err(TimestampError::Form);
    }
    let mut nanos = 0;
    let mut unit = NANOS_PER_SECOND / 10;
    for digit in digits.iter().take(9) {
        nanos += u32::from(digit - b'0') * unit;
        unit /= 10;
    }
    Ok((nanos, zone))
}

fn offset(zone: &[u8]) -> Result<i16, TimestampError> {
    match *zone {
        [b'Z'] => Ok(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (pair(h0, h1)?, pair(m0, m1)?);
            if hours > 23 || minutes > 59 {
                return Err(TimestampError::Range);
            }
            let total = i16::from(hours) * 60 + i16::from(minutes);
            Ok(if sign == b'-' { -total } else { total })
        }
        _ => Err(TimestampError::Form),
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a day in the proleptic Gregorian calendar, counted in years that start in March.
fn days_from_civil(year: i64, month: u8, day: u8) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day since 1970-01-01: the inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Timestamp::parse(text).unwrap().to_string()
    }

    #[test]
    fn text_comes_back_with_its_offset_and_the_shortest_fraction() {
        assert_eq!(shown("2031-04-05T06:07:08.250000Z"), "2031-04-05T06:07:08.25Z");
        assert_eq!(shown("2031-04-05T16:07:08,25+10:00"), "2031-04-05T16:07:08.25+10:00");
        assert_eq!(shown("2031-04-05T06:07:08-00:00"), "2031-04-05T06:07:08Z");
        assert_eq!(shown("2024-02-29T23:59:59.123456789123-05:30"), "2024-02-29T23:59:59.123456789-05:30");
        assert_eq!(shown("1969-12-31T23:59:59.5Z"), "1969-12-31T23:59:59.5Z");
        assert_eq!(shown("0000-03-01T00:00:00Z"), "0000-03-01T00:00:00Z");
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2031-04-05",
            "2031-04-05 06:07:08Z",
            "2031-04-05t06:07:08Z",
            "2031-04-05T06:07:08z",
            "2031-04-05T06:07:08",
            "2031-04-05T06:07:08.Z",
            "2031-04-05T06:07:08+1000",
            "2031-04-05T06:07:08+10",
            "2031-04-05T06:07:08Zx",
            "2031-4-05T06:07:08Z0",
            "2031-04-05T06:07Z",
            "+031-04-05T06:07:08Z",
            "２031-04-05T06:07:08Z",
            "1775369228",
        ] {
            assert_eq!(Timestamp::parse(text), Err(TimestampError::Form), "{text}");
        }
    }

    #[test]
    fn days_and_times_that_do_not_exist_are_refused() {
        for text in [
            "2031-02-29T06:07:08Z",
            "2100-02-29T06:07:08Z",
            "2031-13-01T06:07:08Z",
            "2031-00-01T06:07:08Z",
            "2031-04-31T06:07:08Z",
            "2031-04-00T06:07:08Z",
            "2031-04-05T24:07:08Z",
            "2031-04-05T06:60:08Z",
            "2031-04-05T06:07:60Z",
            "2031-04-05T06:07:08+24:00",
            "2031-04-05T06:07:08+10:60",
        ] {
            assert_eq!(Timestamp::parse(text), Err(TimestampError::Range), "{text}");
        }
    }

    #[test]
    fn zero_time_is_year_one() {
        assert_eq!(Timestamp::zero().to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Timestamp::zero().micros(), -62_135_596_800_000_000);
        assert!(Timestamp::from_micros(-62_135_596_800_000_000).is_zero());
        assert!(Timestamp::default().is_representable());
        assert!(!Timestamp::parse("0001-01-01T00:00:00+10:00").unwrap().is_representable());
        assert!(Timestamp::parse("9999-12-31T23:59:59.9Z").unwrap().is_representable());
        assert!(!Timestamp::parse("9999-12-31T23:59:59-00:01").unwrap().is_representable());
    }

    #[test]
    fn storage_cuts_below_microseconds_and_keeps_the_instant() {
        let time = Timestamp::parse("1969-12-31T23:59:59.123456789+10:00").unwrap();
        assert_eq!(time.stored().to_string(), "1969-12-31T13:59:59.123456Z");
        assert_eq!(Timestamp::from_micros(i64::MIN).micros(), i64::MIN);
        assert_eq!(Timestamp::from_micros(i64::MAX).micros(), i64::MAX);
        assert!(!Timestamp::from_micros(i64::MAX).is_representable());
        assert!(!Timestamp::from_micros(i64::MIN).to_string().is_empty());
    }

    #[test]
    fn order_is_by_instant() {
        let utc = Timestamp::parse("2031-04-05T06:07:08.25Z").unwrap();
        let east = Timestamp::parse("2031-04-05T16:07:08.25+10:00").unwrap();
        assert_eq!(utc, east);
        assert!(utc < Timestamp::parse("2031-04-05T16:07:08.26+10:00").unwrap());
        assert!(utc > Timestamp::parse("2031-04-05T06:07:08.2Z").unwrap());
    }

    #[test]
    fn key_and_link_forms_follow_the_offset() {
        let form = |text| {
            let time = Timestamp::parse(text).unwrap();
            (time.key_form(), time.link_form())
        };
        assert_eq!(form("2026-01-02T03:05:00.9Z").0, "2026-01-02T03:05:00");
        assert_eq!(form("2026-01-02T03:05:00.9Z").1, "2026_01_02T03_05_00Z_00");
        assert_eq!(form("2026-01-02T13:05:00+10:00").1, "2026_01_02T13_05_00+10_00");
        assert_eq!(form("2026-01-02T13:05:00+05:30").1, "2026_01_02T13_05_00+05_00");
        assert_eq!(form("2026-01-02T13:05:00-05:30").1, "2026_01_02T13_05_00-05_00");
    }

    #[test]
    fn every_day_of_eight_centuries_comes_back() {
        for days in -292_194..292_194 {
            let (year, month, day) = civil_from_days(days);
            let (month, day) = (u8::try_from(month).unwrap(), u8::try_from(day).unwrap());
            assert!(day >= 1 && day <= days_in_month(year, month));
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
