//! Magic rules: from magic lines and mime lines to a first type (streams.md 8.2).
//!
//! Called by `Identifier::identify`. The order is the meaning: the first rule with any hit ends the search, so an early
//! rule that hits a secondary line beats a later one that hits the first line.

/// One rule on magic lines.
struct Rule {
    /// Number in streams.md 8.2.
    number: u8,
    file_type: &'static str,
    /// Alternatives. Each is a list of texts, in lower case, that must follow one another on one line; a leading `^`
    /// of the first one ties it to the beginning of the line.
    tests: &'static [&'static [&'static str]],
}

const fn rule(number: u8, file_type: &'static str, tests: &'static [&'static [&'static str]]) -> Rule {
    Rule { number, file_type, tests }
}

/// Rules 1 to 87. Rules 88 (a mime line) and 89 (anything at all) are the end of [`first_type`].
#[rustfmt::skip]
const RULES: [Rule; 87] = [
    rule(1, "archive/tnef", &[&["transport neutral encapsulation format"]]),
    rule(2, "archive/chm", &[&["ms windows htmlhelp data"]]),
    rule(3, "executable/windows/dll64", &[&["^pe32+ ", "dll", "x86-64"]]),
    rule(4, "executable/windows/pe64", &[&["^pe32+ ", "x86-64", "windows"]]),
    rule(5, "executable/windows/dll32", &[&["^pe32 ", "dll"]]),
    rule(6, "executable/windows/pe32", &[&["^pe32 ", "windows"]]),
    rule(7, "executable/windows/dll64", &[&["^pe32+", "ms windows", "(dll)"]]),
    rule(8, "executable/windows/pe64", &[&["^pe32+", "ms windows"]]),
    rule(9, "executable/windows/pe", &[&["^pe unknown", "windows"]]),
    rule(10, "executable/dll32", &[&["^pe32+ executable (dll)"]]),
    rule(11, "executable/pe32", &[&["^pe32+ executable"]]),
    rule(12, "executable/windows/dos", &[&["^dos executable"], &["^ms-dos executable"]]),
    rule(13, "executable/windows/com", &[&["^com executable"]]),
    rule(14, "executable/windows/dos", &[&["^8086 relocatable"]]),
    rule(15, "executable/linux/elf32", &[&["^elf 32-bit ", "executable"]]),
    rule(16, "executable/linux/elf64", &[&["^elf 64-bit ", "executable"]]),
    rule(17, "executable/linux/so32", &[&["^elf 32-bit ", "shared object"]]),
    rule(18, "executable/linux/so64", &[&["^elf 64-bit ", "shared object"]]),
    rule(19, "executable/linux/elf32", &[&["^elf 32-bit lsb"]]),
    rule(20, "executable/linux/elf64", &[&["^elf 64-bit lsb"]]),
    rule(21, "executable/mach-o", &[&["^mach-o"]]),
    rule(22, "archive/7-zip", &[&["^7-zip archive data"]]),
    rule(23, "archive/ace", &[&["^ace archive data"]]),
    rule(24, "archive/arj", &[&["^arj archive data"]]),
    rule(25, "archive/bzip2", &[&["^bzip2 compressed data"]]),
    rule(26, "archive/cabinet", &[&["^installshield cab"]]),
    rule(27, "archive/cabinet", &[&["^microsoft cabinet archive data"]]),
    rule(28, "archive/cpio", &[&["cpio archive"]]),
    rule(29, "archive/gzip", &[&["^gzip compressed data"]]),
    rule(30, "archive/iso", &[&["iso 9660"]]),
    rule(31, "archive/lzma", &[&["^lzma compressed data"]]),
    rule(32, "archive/rar", &[&["^rar archive data"]]),
    rule(33, "archive/squashfs", &[&["^squashfs filesystem"]]),
    rule(34, "archive/tar", &[&["^gnu tar archive"], &["^posix tar archive"]]),
    rule(35, "archive/xz", &[&["^xz compressed data"]]),
    rule(36, "archive/zip", &[&["^zip archive data"]]),
    rule(37, "network/tcpdump", &[&["^tcpdump"], &["^pcap"]]),
    rule(38, "document/pdf", &[&["^pdf document"]]),
    rule(39, "image/bmp", &[&["^pc bitmap"]]),
    rule(40, "image/bmp", &[&["^device independent bitmap graphic"]]),
    rule(41, "image/gif", &[&["^gif image data"]]),
    rule(42, "image/jpg", &[&["^jpeg image data"]]),
    rule(43, "image/png", &[&["^png image data"]]),
    rule(44, "image/icon", &[&["^ms windows icon resource"]]),
    rule(45, "image/tiff", &[&["^tiff image"]]),
    rule(46, "installer/windows", &[&["installation database"], &["windows installer"], &["advanced installer"]]),
    rule(47, "document/office/excel", &[&["microsoft", "excel"]]),
    rule(48, "document/office/powerpoint", &[&["microsoft", "powerpoint"]]),
    rule(49, "document/office/word", &[&["microsoft", "word"]]),
    rule(50, "document/office/visio", &[&["microsoft", "visio"]]),
    rule(51, "document/office/rtf", &[&["rich text format"]]),
    rule(52, "document/office/sylk", &[&["^spreadsheet interchange document"]]),
    rule(53, "document/office/passwordprotected", &[&["^cdfv2 encrypted"]]),
    rule(54, "document/office/ole", &[&["ole 2"]]),
    rule(55, "document/office/unknown", &[&["composite document file"], &["cdfv2"]]),
    rule(56, "document/office/unknown", &[&["microsoft", "ooxml"], &["microsoft", "document"]]),
    rule(57, "document/office/unknown", &[&["number of characters"], &["number of pages"], &["number of words"]]),
    rule(58, "audiovisual/flash", &[&["macromedia flash"]]),
    rule(59, "archive/rpm", &[&["^rpm "]]),
    rule(60, "archive/deb", &[&["^debian binary package"]]),
    rule(61, "archive/ar", &[&["ar archive"]]),
    rule(62, "code/autorun", &[&["microsoft windows autorun"]]),
    rule(63, "code/batch", &[&["dos batch file"]]),
    rule(64, "android/apk", &[&["^dalvik dex"], &["android package (apk)"]]),
    rule(65, "java/jar", &[&[" jar "], &["(jar "], &[" jar)"], &["(jar)"]]),
    rule(66, "java/java", &[&["java program"]]),
    rule(67, "code/class", &[&["java class data"]]),
    rule(68, "code/perl", &[&["perl ", "script"]]),
    rule(69, "code/php", &[&["php script"]]),
    rule(70, "code/python", &[&["python ", "script"], &["python ", "byte"]]),
    rule(71, "code/shell", &[&["shell script"], &["sh script"]]),
    rule(72, "code/xml", &[&["opengis kml"]]),
    rule(73, "sff", &[&["frame format"]]),
    rule(74, "meta/shortcut/windows", &[&["^ms windows shortcut"]]),
    rule(75, "document/email", &[&["mime entity text"]]),
    rule(76, "document/email", &[&["mime entity, ascii text"]]),
    rule(77, "document/email", &[&["^message/rfc822"]]),
    rule(78, "document/email", &[&["^smtp mail"]]),
    rule(79, "document/email", &[&["^rfc 822 mail"]]),
    rule(80, "document/email", &[&["^news or mail,"]]),
    rule(81, "metadata/sysmon", &[&["ms windows vista event log"]]),
    rule(82, "code/html", &[&["html"]]),
    rule(83, "code/sgml", &[&["sgml"]]),
    rule(84, "document/xml", &[&["xml"]]),
    rule(85, "text/plain", &[&["^ascii text"]]),
    rule(86, "text/plain", &[&["^unicode ", "text"]]),
    rule(87, "text/plain", &[&["^iso-8859 text"]]),
];

/// What the magic rules say: the type and the number of the rule, or `None` when there is no magic text at all.
pub(super) fn first_type(magics: &[String], mimes: &[String]) -> Option<(&'static str, u8)> {
    let lines: Vec<String> = magics.iter().map(|line| line.to_ascii_lowercase()).collect();
    for rule in &RULES {
        if lines.iter().any(|line| rule.tests.iter().any(|test| holds(test, line))) {
            return Some((rule.file_type, rule.number));
        }
    }
    if mimes.iter().any(|mime| mime.to_ascii_lowercase().contains("text/")) {
        return Some(("text/plain", 88));
    }
    lines.iter().any(|line| !line.is_empty()).then_some(("unknown", 89))
}

fn holds(test: &[&str], line: &str) -> bool {
    let Some((first, others)) = test.split_first() else { return false };
    let rest = match first.strip_prefix('^') {
        Some(start) => line.strip_prefix(start),
        None => line.split_once(first).map(|(_, rest)| rest),
    };
    let Some(mut rest) = rest else { return false };
    for text in others {
        let Some((_, after)) = rest.split_once(text) else { return false };
        rest = after;
    }
    true
}

/// Every type a rule can give, for the test that the type table knows them all.
#[cfg(test)]
pub(super) fn named_types() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.file_type).chain(["text/plain", "unknown"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(magics: &[&str], mimes: &[&str]) -> Option<(&'static str, u8)> {
        let own = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<Vec<_>>();
        first_type(&own(magics), &own(mimes))
    }

    #[test]
    fn rules_are_numbered_in_order() {
        assert!(RULES.iter().enumerate().all(|(at, rule)| usize::from(rule.number) == at + 1));
    }

    #[test]
    fn an_early_rule_on_a_secondary_line_wins() {
        assert_eq!(of(&["EPUB document", "Zip archive data, at least v2.0"], &[]), Some(("archive/zip", 36)));
    }

    #[test]
    fn anchors_and_order_within_a_line_count() {
        assert_eq!(of(&["PE32+ executable (DLL) (GUI) x86-64, for MS Windows"], &[]).unwrap().1, 3);
        assert_eq!(of(&["PE32 executable (GUI) Intel 80386, for MS Windows"], &[]).unwrap().1, 6);
        assert_eq!(of(&["a PE32 executable for MS Windows"], &[]).unwrap().1, 89);
        assert_eq!(of(&["script without python "], &[]).unwrap().1, 89);
        assert_eq!(of(&["Java archive data (JAR)"], &[]), Some(("java/jar", 65)));
        assert_eq!(of(&["jarring"], &[]).unwrap().1, 89);
    }

    #[test]
    fn rule_88_looks_at_mimes_only_and_needs_no_magic_line() {
        assert_eq!(of(&["text/plain"], &[]).unwrap().1, 89);
        assert_eq!(of(&[], &["application/x", "Text/X-anything"]), Some(("text/plain", 88)));
        assert_eq!(of(&[""], &["application/x"]), None);
    }
}
